"""Requests that are made both to the model's server and through Predawn."""

import json

MODEL = "smollm2-135m-instruct"
FRANCE = {"role": "user", "content": "What is the capital of France? Answer in one short sentence."}
SURE = {"temperature": 0, "seed": 7}


def _call(number, city):
    function = {"name": "lookup", "arguments": json.dumps({"city": city})}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return [
        {"role": "user", "content": f"Weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call_{number}", "content": "sun"},
    ]


LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]}},
            "required": ["city"],
        },
    },
}
# A model this small calls a tool only if it has seen it done.
ASKING_FOR_A_TOOL = [*_call(1, "Rome"), *_call(2, "Oslo"), {"role": "user", "content": "Weather in Paris?"}]
CITY = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def chat(**more):
    return {"model": MODEL, "messages": [FRANCE], "max_tokens": 6, **SURE, **more}


def tools(**more):
    return chat(messages=ASKING_FOR_A_TOOL, tools=[LOOKUP], tool_choice="required", max_tokens=40, **more)


def completion(**more):
    return {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 4, **SURE, **more}
