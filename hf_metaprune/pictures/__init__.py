"""All pictures, by matplotlib: of a model and its vote (`report`), of a bank (`bank`), in one look (`style`)."""
