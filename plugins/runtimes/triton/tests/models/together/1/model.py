"""Asks two at once: Triton's example of asynchronous business logic, in our words."""

import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        return [await self.answer(request) for request in requests]

    async def answer(self, request):
        given = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        answers = await asyncio.gather(
            *(self.ask(given, other).async_exec() for other in (np.zeros_like(given), given))
        )
        if failed := [answer for answer in answers if answer.has_error()]:
            return pb_utils.InferenceResponse(error=failed[0].error())
        once, twice = (pb_utils.get_output_tensor_by_name(answer, "OUTPUT0").as_numpy() for answer in answers)
        return pb_utils.InferenceResponse([pb_utils.Tensor("ONCE", once), pb_utils.Tensor("TWICE", twice)])

    def ask(self, one, other):
        return pb_utils.InferenceRequest(
            model_name="add_sub",
            requested_output_names=["OUTPUT0"],
            inputs=[pb_utils.Tensor("INPUT0", one), pb_utils.Tensor("INPUT1", other)],
        )
