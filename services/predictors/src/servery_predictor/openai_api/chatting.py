"""How a chat is answered: in which form, and what the model is held to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from servery_sdk.language import ConstrainedModel, Sampling, ToolCallingModel
from servery_sdk.manifests import Json
from servery_sdk.toolcalls import Calls, OneCall, ToolForm, marks_are_special

from servery_predictor.openai_api.answers import ChatForm, Form
from servery_predictor.openai_api.errors import Refused
from servery_predictor.openai_api.requests import ChatRequest
from servery_predictor.openai_api.tools import CallingForm, schema_of_calls


def chatting(asked: ChatRequest, model: object) -> tuple[Form, Sampling]:
    """Return the form of the answer and how its tokens are chosen.

    Raises:
        Refused: The model cannot be held to what is asked for, or it contradicts itself.
    """
    schema, sampling = asked.json_schema, asked.sampling
    is_parallel = asked.parallel_tool_calls is not False
    named = asked.named_tool
    if asked.tool_choice == "required" and not asked.tools:
        raise Refused("tool_choice: 'required' without tools", param="tool_choice")
    if schema is not None and asked.usable_tools:
        raise Refused(
            "response_format: JSON goes without tools here; leave one of them out, or say tool_choice 'none'",
            param="response_format",
        )
    if schema is not None:
        return ChatForm(), replace(sampling, json_schema=_holding(asked, model, schema, "response_format"))
    if named is not None:
        held = _holding(asked, model, named.arguments, "tool_choice")
        form = CallingForm(partial(OneCall, named.function.name), _form(model), is_parallel=False, is_named=True)
        return form, replace(sampling, json_schema=held)
    if asked.tool_choice == "required":
        calls = schema_of_calls(asked.usable_tools, is_parallel=is_parallel)
        held = _holding(asked, model, calls, "tool_choice")
        form = CallingForm(partial(Calls, ToolForm.LIST), _form(model), is_parallel=is_parallel, is_named=False)
        return form, replace(sampling, json_schema=held)
    found = _form(model)
    if not asked.usable_tools or found is None:
        return ChatForm(), sampling
    form = CallingForm(partial(Calls, found), found, is_parallel=is_parallel, is_named=False)
    return form, replace(sampling, shows_special_tokens=marks_are_special(found))


def _form(model: object) -> ToolForm | None:
    return model.tool_form if isinstance(model, ToolCallingModel) else None


def _holding(asked: ChatRequest, model: object, schema: Mapping[str, Json], param: str) -> Mapping[str, Json]:
    if not isinstance(model, ConstrainedModel):
        raise Refused(f"{param}: model {asked.model!r} cannot be held to JSON; ask for text", param=param)
    if asked.ignore_eos:
        raise Refused(f"ignore_eos: JSON has an end; goes without {param}", param="ignore_eos")
    return schema
