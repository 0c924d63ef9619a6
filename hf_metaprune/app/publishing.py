"""Section 5 of the page: the model goes to the visitor's own account on the Hub, with a card that says what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import gradio as gr

from ..errors import HubError, TokenError
from ..files.names import is_repo_id
from . import views
from .events import resting, run_steps
from .results import ResultSection
from .shared import PRIVATE, SharedState, Update
from .visitor import Visitor

if TYPE_CHECKING:
    from ..result import AdaptResult

TICKET = "back"
"""In the address of the page for one who comes back from signing in."""
GO = f"""(to) => {{
  if (!to) return
  const back = new URL(to, window.location).searchParams.get('_target_url')
  try {{ sessionStorage.setItem('{TICKET}', new URL(back, window.location).searchParams.get('{TICKET}')) }} catch {{}}
  window.parent?.postMessage({{type: 'SET_SCROLLING', enabled: true}}, '*')
  window.location.assign(to)
}}"""
"""To where one signs in; who comes back by the browser's own button has the ticket from its storage."""
RESTORE = f"""() => {{
  try {{
    const kept = sessionStorage.getItem('{TICKET}')
    sessionStorage.removeItem('{TICKET}')
    return kept ?? ''
  }} catch {{ return '' }}
}}"""
SIGN_IN, SIGN_OUT = "Sign in with Hugging Face", "Sign out ({})"
AT_ONCE = 4
"""Publications at a time; they wait for the Hub, not for this machine."""


def refusals() -> dict[Any, Any]:
    """What answers who has not signed in after all: the page, as it was."""
    try:
        from authlib.integrations.base_client.errors import OAuthError
    except ImportError:  # Gradio without its extra: nobody signs in
        return {}
    from starlette.requests import Request
    from starlette.responses import RedirectResponse

    async def back(request: Request, _: Exception) -> RedirectResponse:
        tickets = parse_qs(urlsplit(request.query_params.get("_target_url", "")).query).get(TICKET, [""])
        return RedirectResponse(f"/?{urlencode({TICKET: tickets[0]})}")

    return {OAuthError: back}


class PublishingSection:
    """In a Space visitors sign in; elsewhere they give a token, which is used once and kept nowhere."""

    def __init__(self, shared: SharedState) -> None:
        self.shared = shared
        self.signed_in = gr.utils.get_space() is not None
        with gr.Accordion("4. Publish it on the Hugging Face Hub", open=False) as self.all:
            gr.Markdown(
                "It takes an account there, which is free. Your photos are not sent; the model is public, unless you "
                "choose otherwise, with a card that says what it is and what it was made of. There it can vote for the "
                "tasks of others."
            )
            self.to = gr.Textbox(visible="hidden")
            if self.signed_in:
                gr.LoginButton(visible=False)  # lets visitors sign in; but its own press leaves all that they have made
                self.login = gr.Button(SIGN_IN, variant="huggingface")
            else:
                said = "From huggingface.co/settings/tokens, with the right to write. It is used once, and not kept."
                self.token = gr.Textbox(label="Token", info=said, type="password", max_length=200)
            self.name = gr.Textbox(label="Name", placeholder="you/cats-and-dogs", max_length=200)
            self.private = gr.Checkbox(label="Only for me (private)", value=False)
            self.publish = gr.Button("Publish")
            self.messages = gr.HTML(elem_id="published")

    def wire(self, results: ResultSection) -> None:
        """Connect what is pressed with what happens."""
        limit: dict[str, Any] = {"concurrency_limit": AT_ONCE} | PRIVATE
        if self.signed_in:
            self.publish.click(self._as_signed_in, [self.name, self.private], [self.publish, self.messages], **limit)
            asked = self.login.click(self._sign, [self.login, self.name], [self.to], queue=False, **PRIVATE)
            asked.then(None, [self.to], js=GO)
        else:
            given = [self.name, self.private, self.token]
            self.publish.click(self._with_token, given, [self.publish, self.messages, self.token], **limit)
        results.result.change(lambda: "", None, [self.messages], **PRIVATE)  # another model: it is not published

    def arrived(self, visitor: Visitor) -> Update:
        """How the section looks to one who comes back from signing in."""
        return {self.all: gr.update(open=True), self.name: visitor.name}

    def who(self, profile: gr.OAuthProfile | None) -> str:
        """What the button says: for whom it would do what."""
        return SIGN_IN if profile is None else SIGN_OUT.format(profile.username)

    def _sign(self, says: str, name: str, request: gr.Request) -> str:
        """Where the visitor signs in, or out, and comes back from."""
        visitor = self.shared.visitor(request)
        visitor.name = name
        back = quote(f"/?{TICKET}={self.shared.visitors.expect(visitor)}", safe="")
        return f"/{'login/huggingface' if says == SIGN_IN else 'logout'}?_target_url={back}"

    def _as_signed_in(
        self, name: str, private: bool, request: gr.Request, token: gr.OAuthToken | None
    ) -> Iterator[Update]:
        yield from self._publish(name, private, token.token if token is not None else "", request)

    def _with_token(self, name: str, private: bool, token: str, request: gr.Request) -> Iterator[Update]:
        if self._is_ready(name, request):  # what is wrong with the name costs nobody a token
            yield {self.token: ""}
        yield from self._publish(name, private, (token or "").strip(), request)

    def _is_ready(self, name: str, request: gr.Request) -> bool:
        return self.shared.visitor(request).result is not None and is_repo_id((name or "").strip())

    def _publish(self, name: str, private: bool, token: str, request: gr.Request) -> Iterator[Update]:
        made, name = self.shared.visitor(request).result, (name or "").strip()
        before = resting(self.publish) | {self.messages: views.message("Publishing…")}
        yield from run_steps(
            self._sent(made, name, private, token), self.messages, before, resting(self.publish, False)
        )

    def _sent(self, made: AdaptResult | None, name: str, private: bool, token: str) -> Iterator[Update]:
        if made is None:
            raise HubError("there is no model yet: press “Make my model” first")
        if not token:
            raise HubError(
                "sign in first" if self.signed_in else "it takes a token of yours: see above where to get one"
            )
        if not is_repo_id(name):
            raise HubError("the name is that of your account, a slash, and what you call it: you/cats-and-dogs")
        if not re.fullmatch("[A-Za-z0-9_.-]+", token):
            raise HubError("this is no token: copy it again, from hf_ to its end")
        try:
            yield {self.messages: views.published(made.push_to_hub(name, token=token, private=private or None))}
        except TokenError as error:
            owner = name.partition("/")[0]
            raise HubError(
                f"the Hub does not let you write to the account “{owner}”: sign in again, and let this page write"
                if self.signed_in
                else f"the Hub does not take this token for the account “{owner}”: copy it again, or make another one, "
                "with the right to write there"
            ) from error
