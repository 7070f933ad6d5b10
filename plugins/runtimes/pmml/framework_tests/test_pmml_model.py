from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import jpype
import numpy as np
import pytest
from servery_runtime_pmml import jvm
from servery_runtime_pmml.model import PMMLModel, machine
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, v1
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

FRAMEWORK = ("jpype", "jpmml_evaluator")

FIELDS = """
<DataField name="y" optype="continuous" dataType="double"/>
<DataField name="rooms" optype="continuous" dataType="integer"/>
<DataField name="area" optype="continuous" dataType="double"/>
<DataField name="town" optype="categorical" dataType="string"><Value value="Bonn"/><Value value="Kiel"/></DataField>
"""


def document(fields: str, model: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/>'
        f"<DataDictionary>{fields}</DataDictionary>{model}</PMML>"
    )


def regression(
    slope: float, *, target: str = '<MiningField name="y" usageType="target"/>', output: str = "", verify: str = ""
) -> str:
    return document(
        FIELDS,
        f"""<RegressionModel functionName="regression">
        <MiningSchema>{target}<MiningField name="rooms"/><MiningField name="area"/>
        <MiningField name="town" missingValueReplacement="Kiel"/></MiningSchema>{output}
        <RegressionTable intercept="1"><NumericPredictor name="rooms" coefficient="{slope}"/>
        <NumericPredictor name="area" coefficient="0.5"/>
        <CategoricalPredictor name="town" value="Bonn" coefficient="100"/></RegressionTable>{verify}</RegressionModel>""",
    )


def tree(threshold: float) -> str:
    fields = """
    <DataField name="class" optype="categorical" dataType="integer"><Value value="3"/><Value value="8"/></DataField>
    <DataField name="x" optype="continuous" dataType="float"/><DataField name="on" optype="categorical" dataType="boolean"/>
    """
    scores = "".join(
        f"""<Node id="{word}" score="{score}"><SimplePredicate field="x" operator="{operator}" value="{threshold}"/>
        <ScoreDistribution value="{score}" recordCount="3"/><ScoreDistribution value="{other}" recordCount="1"/></Node>"""
        for word, score, other, operator in (("löw", 3, 8, "lessThan"), ("high", 8, 3, "greaterOrEqual"))
    )
    return document(
        fields,
        f"""<TreeModel functionName="classification" splitCharacteristic="multiSplit"><MiningSchema>
        <MiningField name="class" usageType="target"/><MiningField name="x"/><MiningField name="on"/></MiningSchema>
        <Output><OutputField name="p8" optype="continuous" dataType="double" feature="probability" value="8"/>
        <OutputField name="leaf" optype="categorical" dataType="string" feature="entityId"/></Output>
        <Node id="0"><True/>{scores}</Node></TreeModel>""",
    )


def served(text: str, directory: Path) -> PMMLModel:
    (directory / "model.pmml").write_text(text, encoding="utf-8")
    model = PMMLModel()
    model.load(directory)
    return model


def tensor(name: str, data: Any, dtype: Any = None) -> Tensor:
    array = np.array(data, dtype=dtype)
    return Tensor(name=name, data=array, datatype=Datatype.of(array))


def texts(name: str, *words: str) -> Tensor:
    return tensor(name, [word.encode() for word in words], object)


def request(*tensors: Tensor) -> InferRequest:
    return InferRequest(model="m", inputs=tensors)


def values(response: InferResponse) -> dict[str, Any]:
    return {output.name: output.data.tolist() for output in response.outputs}


FLAT = (texts("town", "Bonn", "Kiel"), tensor("rooms", [1, 2]), tensor("area", [10.0, 20.0]))


class TestRegression(RuntimeContract):
    plugin = "servery_runtime_pmml.plugin"
    framework = FRAMEWORK
    good_request = request(*FLAT)
    good_response = InferResponse(model="m", outputs=(tensor("y", [109.0, 17.0]),), rows_are_objects=True)
    wrong_request = request(texts("town", "Bonn"), tensor("rooms", [1]), tensor("area", [[1.0, 2.0]]))

    def write_model(self, directory: Path) -> None:
        (directory / "model.pmml").write_text(regression(3.0))

    def write_other_model(self, directory: Path) -> None:
        (directory / "model.pmml").write_text(regression(4.0))


class TestClassification(RuntimeContract):
    plugin = "servery_runtime_pmml.plugin"
    framework = FRAMEWORK
    good_request = request(tensor("x", [0.5, 2.5], "f4"), tensor("on", [True, False]))
    good_response = InferResponse(
        model="m",
        outputs=(tensor("class", [3, 8]), tensor("p8", [0.25, 0.75]), texts("leaf", "löw", "high")),
        rows_are_objects=True,
    )
    wrong_request = request(texts("x", "wide"), tensor("on", [True]))

    def write_model(self, directory: Path) -> None:
        (directory / "model.xml").write_text(tree(1.5), encoding="utf-8")

    def write_other_model(self, directory: Path) -> None:
        (directory / "model.xml").write_text(tree(0.5), encoding="utf-8")


def test_v1_answers_an_object_for_each_row_as_kserve_does(tmp_path: Path) -> None:
    asked = v1.decode_request(b'{"instances": [{"rooms": 1, "area": 10, "town": "Bonn"}]}', model="m")
    assert v1.encode_response(served(regression(3.0), tmp_path).predict(asked)) == b'{"predictions":[{"y":109.0}]}'


def test_a_matrix_has_the_fields_in_the_order_of_the_mining_schema(tmp_path: Path) -> None:
    found = served(tree(1.5), tmp_path).predict(request(tensor("input-0", [[0.0, 1], [2.0, 0]])))
    assert values(found)["class"] == [3, 8]


def test_a_matrix_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input 'input-0' has shape \[1, 3\]; the model takes \[rows, 2\]"):
        served(tree(1.5), tmp_path).predict(request(tensor("input-0", [[0.0, 1.0, 2.0]])))


def test_a_name_that_no_field_has_is_refused_with_the_fields(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"inputs \['area', 'floors'\] are not .*: \['area', 'rooms', 'town'\]"):
        served(regression(3.0), tmp_path).predict(request(tensor("area", [1.0]), tensor("floors", [1])))


def test_a_field_that_is_left_out_is_missing_and_the_model_says_what_that_means(tmp_path: Path) -> None:
    model = served(regression(3.0), tmp_path)
    assert values(model.predict(request(tensor("rooms", [1]), tensor("area", [10.0])))) == {"y": [9.0]}
    found = model.predict(request(tensor("area", [10.0, np.nan]), tensor("rooms", [1, 1])))
    assert values(found)["y"] == pytest.approx([9.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("town", "rooms", "words"),
    [
        ("Ulm", 1, r"row 1: Field \"town\" cannot accept invalid value \"Ulm\""),
        ("Kiel", 1.5, r"row 1: Field \"rooms\" cannot accept invalid value 1.5"),
    ],
)
def test_a_value_that_the_field_does_not_allow_is_refused_by_its_row(
    town: str, rooms: float, words: str, tmp_path: Path
) -> None:
    sent = request(texts("town", "Bonn", town), tensor("rooms", [1.0, rooms]), tensor("area", [1.0, 1.0]))
    with pytest.raises(InputError, match=words):
        served(regression(3.0), tmp_path).predict(sent)


def test_a_target_without_a_name_has_the_name_of_an_only_output(tmp_path: Path) -> None:
    model = served(regression(3.0, target=""), tmp_path)
    assert values(model.predict(request(*FLAT))) == {"output-0": [109.0, 17.0]}
    assert [output.name for output in model.metadata().outputs] == ["output-0"]


OTHERS = """<Output><OutputField name="whole" optype="continuous" dataType="integer" feature="transformedValue">
<FieldRef field="rooms"/></OutputField>
<OutputField name="where" optype="categorical" dataType="string" feature="transformedValue">
<Apply function="uppercase"><FieldRef field="town"/></Apply></OutputField></Output>"""


def test_outputs_of_every_type_have_the_type_that_the_document_declares(tmp_path: Path) -> None:
    model = served(regression(3.0, output=OTHERS), tmp_path)
    found = model.predict(request(*FLAT))
    assert values(found) == {"y": [109.0, 17.0], "whole": [1, 2], "where": [b"BONN", b"KIEL"]}
    stated = {output.name: output.datatype for output in model.metadata().outputs}
    assert stated == {output.name: output.datatype for output in found.outputs}


def test_an_integer_that_is_missing_is_refused_by_its_row(tmp_path: Path) -> None:
    model = served(regression(3.0, output=OTHERS), tmp_path)
    with pytest.raises(InputError, match="row 1: the model gives no 'whole', and INT64 has no missing value"):
        model.predict(request(tensor("area", [1.0, 1.0]), tensor("rooms", [1.0, np.nan])))


def test_several_threads_answer_as_one_does(tmp_path: Path) -> None:
    model = served(regression(3.0), tmp_path)
    model.threads = 4
    rows = np.arange(1000)
    found = model.predict(request(tensor("rooms", rows), tensor("area", rows * 2.0)))
    assert values(found)["y"] == (1 + rows * 4.0).tolist()


VERIFICATION = """<ModelVerification recordCount="1" fieldCount="3"><VerificationFields>
<VerificationField field="rooms" column="rooms"/><VerificationField field="area" column="area"/>
<VerificationField field="y" column="y"/></VerificationFields>
<InlineTable><row><rooms>1</rooms><area>10</area><y>{}</y></row></InlineTable></ModelVerification>"""


def test_a_document_whose_own_examples_come_out_otherwise_is_refused(tmp_path: Path) -> None:
    served(regression(3.0, verify=VERIFICATION.format(9.0)), tmp_path)
    with pytest.raises(LoadError, match=r"model\.pmml: cannot be loaded by JPMML \(jpmml-evaluator-.*\): .*9\.0"):
        served(regression(3.0, verify=VERIFICATION.format(12.0)), tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("<a/>", "unexpected element", id="another document"),
        pytest.param(document(FIELDS, ""), "Required element PMML/<Model>", id="no model"),
        pytest.param('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>', "DOCTYPE", id="an entity"),
    ],
)
def test_a_document_that_is_no_model_is_refused_shortly(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=rf"model\.pmml: .*{words}") as refused:
        served(text, tmp_path)
    assert len(str(refused.value)) < 700


def test_java_leaves_the_signals_to_the_server(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    caught = []
    signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:
        served(regression(3.0), tmp_path)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert caught == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]


def java(directory: Path, version: str) -> Path:
    """Return the library of a Java home that says to be of ``version``."""
    library = directory / "lib" / "server" / "libjvm.so"
    library.parent.mkdir(parents=True)
    library.touch()
    (directory / "release").write_text(f'IMPLEMENTOR="test"\nJAVA_VERSION="{version}"\n')
    return library


@pytest.mark.parametrize(
    ("version", "flags"),
    [("11.0.2", ["-Xrs"]), ("21", ["-Xrs"]), ("25.0.2", ["-Xrs", "--enable-native-access=ALL-UNNAMED"])],
)
def test_flags_are_those_that_the_java_knows(version: str, flags: list[str], tmp_path: Path) -> None:
    assert machine.options(java(tmp_path, version)) == flags


def test_a_java_without_a_release_file_is_taken_as_it_is(tmp_path: Path) -> None:
    library = java(tmp_path, "8")
    (tmp_path / "release").unlink()
    assert machine.options(library) == ["-Xrs"]


@pytest.fixture
def before_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had no machine yet, and this computer no Java."""

    def nothing() -> str:
        message = "No JVM shared library file (libjvm.so) found"
        raise jpype.JVMNotFoundException(message)

    monkeypatch.setattr(jpype, "isJVMStarted", lambda: False)
    monkeypatch.setattr(jpype, "getDefaultJVMPath", nothing)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(machine, "_own", lambda: None)


@pytest.mark.usefixtures("before_start")
def test_without_java_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"model\.pmml: .* needs Java 11 or newer: none was found") as refused:
        served(regression(3.0), tmp_path)
    for way in ("pip install 'servery-runtime-pmml[jvm]'", "openjdk-17-jre-headless", "JAVA_HOME"):
        assert way in str(refused.value)


@pytest.mark.usefixtures("before_start")
@pytest.mark.parametrize(
    ("version", "words"), [("1.8.0_292", "is Java 8; pip install"), ("17.0.1", r"libjvm\.so does not start: .*; pip")]
)
def test_a_java_that_cannot_run_it_is_named(
    version: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = java(tmp_path / "java", version)
    monkeypatch.setattr(jpype, "getDefaultJVMPath", lambda: str(library))
    with pytest.raises(LoadError, match=words):
        served(regression(3.0), tmp_path)


def test_java_home_goes_before_the_one_that_is_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert machine.found().is_relative_to(jvm.HOME)
    shutil.copytree(jvm.HOME / "lib" / "server", tmp_path / "lib" / "server")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert machine.found().is_relative_to(tmp_path)
