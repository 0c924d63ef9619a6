"""Section 4 of the page: publishing the model, with its card, on the visitor's own account of the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import gradio as gr

from ..errors import HubError, TokenError
from ..files.names import is_repo_id
from . import views
from .events import run_steps, set_enabled
from .results import ResultSection
from .shared import PRIVATE, SharedState, Update
from .visitor import Visitor

if TYPE_CHECKING:
    from ..result import AdaptResult

TICKET_PARAMETER = "back"
"""The parameter of the page's address, and the key in the browser's storage, that holds the ticket of a visitor."""
OPEN_SIGN_IN = f"""(address) => {{
  if (!address) return
  const back = new URL(address, window.location).searchParams.get('_target_url')
  const ticket = new URL(back, window.location).searchParams.get('{TICKET_PARAMETER}')
  try {{ sessionStorage.setItem('{TICKET_PARAMETER}', ticket) }} catch {{}}
  window.parent?.postMessage({{type: 'SET_SCROLLING', enabled: true}}, '*')
  window.location.assign(address)
}}"""
"""Opens the address where one signs in or out, and stores the ticket.

A visitor who comes back by the browser's own button has no ticket in the address.
"""
READ_TICKET = f"""() => {{
  try {{
    const ticket = sessionStorage.getItem('{TICKET_PARAMETER}')
    sessionStorage.removeItem('{TICKET_PARAMETER}')
    return ticket ?? ''
  }} catch {{ return '' }}
}}"""
"""Takes the ticket out of the browser's storage."""
SIGN_IN, SIGN_OUT = "Sign in with Hugging Face", "Sign out ({})"
MAX_PUBLICATIONS = 4
"""Most publications at a time; they wait for the Hub, and not for this machine."""


def sign_in_error_handlers() -> dict[Any, Any]:
    """Return the server's handlers of errors by class: a visitor who does not sign in after all gets the page again."""
    try:
        from authlib.integrations.base_client.errors import OAuthError
    except ImportError:  # Gradio lacks its extra for signing in
        return {}
    from starlette.requests import Request
    from starlette.responses import RedirectResponse

    async def redirect_to_page(request: Request, _: Exception) -> RedirectResponse:
        target = urlsplit(request.query_params.get("_target_url", ""))
        tickets = parse_qs(target.query).get(TICKET_PARAMETER, [""])
        return RedirectResponse(f"/?{urlencode({TICKET_PARAMETER: tickets[0]})}")

    return {OAuthError: redirect_to_page}


class PublishingSection:
    """The form to publish a model: in a Space visitors sign in, elsewhere they give a token, which is not stored."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        self.has_sign_in = gr.utils.get_space() is not None
        with gr.Accordion("4. Publish it on the Hugging Face Hub", open=False) as self.accordion:
            gr.Markdown(
                "You need an account on the Hub, which is free. Your photos are not sent. The model is public unless "
                "you choose otherwise, and its card says what it is and how it was made. A public model can vote for "
                "the tasks of other people."
            )
            self.sign_in_address = gr.Textbox(visible="hidden")
            if self.has_sign_in:
                # This button turns signing in on, but is not shown: it would leave the page without a ticket.
                gr.LoginButton(visible=False)
                self.login = gr.Button(SIGN_IN, variant="huggingface")
            else:
                info = (
                    "Get a token with the right to write at huggingface.co/settings/tokens. It is used once, and not "
                    "stored."
                )
                self.token = gr.Textbox(label="Token", info=info, type="password", max_length=200)
            self.name = gr.Textbox(label="Name", placeholder="you/cats-and-dogs", max_length=200)
            self.private = gr.Checkbox(label="Only for me (private)", value=False)
            self.publish = gr.Button("Publish")
            self.messages = gr.HTML(elem_id="published")

    def wire(self, results: ResultSection) -> None:
        """Connect the buttons and fields with their functions."""
        limit: dict[str, Any] = {"concurrency_limit": MAX_PUBLICATIONS} | PRIVATE
        outputs = [self.publish, self.messages]
        if self.has_sign_in:
            self.publish.click(self._publish_signed_in, [self.name, self.private], outputs, **limit)
            fields = [self.login, self.name]
            signing_in = self.login.click(self._find_address, fields, [self.sign_in_address], queue=False, **PRIVATE)
            signing_in.then(None, [self.sign_in_address], js=OPEN_SIGN_IN)
        else:
            fields = [self.name, self.private, self.token]
            self.publish.click(self._publish_with_token, fields, [*outputs, self.token], **limit)
        results.result.change(lambda: "", None, [self.messages], **PRIVATE)  # the message was about another model

    def arrival_update(self, visitor: Visitor) -> Update:
        """Return the update for a visitor who comes back from signing in."""
        return {self.accordion: gr.update(open=True), self.name: visitor.repo_name}

    def login_label(self, profile: gr.OAuthProfile | None) -> str:
        """Return the label of the button that signs in, or out if somebody is signed in."""
        return SIGN_IN if profile is None else SIGN_OUT.format(profile.username)

    def _find_address(self, login_label: str, name: str, request: gr.Request) -> str:
        """Return the address where the visitor signs in or out; it leads back to the page with a ticket."""
        visitor = self.shared.visitor(request)
        visitor.repo_name = name
        target = quote(f"/?{TICKET_PARAMETER}={self.shared.visitors.issue_ticket(visitor)}", safe="")
        return f"/{'login/huggingface' if login_label == SIGN_IN else 'logout'}?_target_url={target}"

    def _publish_signed_in(
        self, name: str, private: bool, request: gr.Request, token: gr.OAuthToken | None
    ) -> Iterator[Update]:
        yield from self._publish(name, private, token.token if token is not None else "", request)

    def _publish_with_token(self, name: str, private: bool, token: str, request: gr.Request) -> Iterator[Update]:
        if self._is_ready(name, request):  # a mistake in the name does not cost the visitor the token
            yield {self.token: ""}
        yield from self._publish(name, private, (token or "").strip(), request)

    def _is_ready(self, name: str, request: gr.Request) -> bool:
        return self.shared.visitor(request).result is not None and is_repo_id((name or "").strip())

    def _publish(self, name: str, private: bool, token: str, request: gr.Request) -> Iterator[Update]:
        result, name = self.shared.visitor(request).result, (name or "").strip()
        before = set_enabled(self.publish, False) | {self.messages: views.message("Publishing…")}
        steps = self._publishing_steps(result, name, private, token)
        yield from run_steps(steps, self.messages, before, set_enabled(self.publish, True))

    def _publishing_steps(self, result: AdaptResult | None, name: str, private: bool, token: str) -> Iterator[Update]:
        if result is None:
            raise HubError("there is no model yet: press “Make my model” first")
        if not token:
            raise HubError("sign in first" if self.has_sign_in else "the token is missing: see above where to get one")
        if not is_repo_id(name):
            raise HubError("the name must be your account, a slash, and a name for the model: you/cats-and-dogs")
        if not re.fullmatch("[A-Za-z0-9_.-]+", token):
            raise HubError("the token has characters that no token has: copy it again, from hf_ to its end")
        try:
            yield {self.messages: views.published(result.push_to_hub(name, token=token, private=private or None))}
        except TokenError as error:
            owner = name.partition("/")[0]
            raise HubError(
                f"the Hub does not let you write to the account “{owner}”: sign in again, and allow this page to write"
                if self.has_sign_in
                else f"the Hub does not accept this token for the account “{owner}”: copy it again, or make another "
                "one with the right to write there"
            ) from error
