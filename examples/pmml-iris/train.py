"""Train the example's model: ``python examples/pmml-iris/train.py``. The same text comes out every time."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

SPECIES = ("setosa", "versicolor", "virginica")
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
TARGET = "species"


def document(model: DecisionTreeClassifier) -> Element:
    """Return a PMML document of the tree: it answers the species, the probability of each, and the node that said so."""
    root = Element("PMML", xmlns="http://www.dmg.org/PMML-4_4", version="4.4")
    SubElement(root, "Header", description="Three species of iris")
    dictionary = SubElement(root, "DataDictionary")
    target = SubElement(dictionary, "DataField", name=TARGET, optype="categorical", dataType="string")
    for name in SPECIES:
        SubElement(target, "Value", value=name)
    for name in FEATURES:
        SubElement(dictionary, "DataField", name=name, optype="continuous", dataType="double")
    tree = SubElement(root, "TreeModel", functionName="classification", splitCharacteristic="binarySplit")
    schema = SubElement(tree, "MiningSchema")
    SubElement(schema, "MiningField", name=TARGET, usageType="target")
    for name in FEATURES:
        SubElement(schema, "MiningField", name=name)
    output = SubElement(tree, "Output")
    probability = {"optype": "continuous", "dataType": "double", "feature": "probability"}
    for name in SPECIES:
        SubElement(output, "OutputField", {"name": f"probability_{name}", "value": name, **probability})
    SubElement(output, "OutputField", name="node", optype="categorical", dataType="string", feature="entityId")
    add_node(tree, model, 0, Element("True"))
    return root


def add_node(parent: Element, model: DecisionTreeClassifier, index: int, predicate: Element) -> None:
    """Add node ``index`` of the tree, and those below it."""
    grown = model.tree_
    shares = grown.value[index][0] / grown.value[index][0].sum()
    counts = [round(share * int(grown.n_node_samples[index])) for share in shares]
    node = SubElement(parent, "Node", id=str(index), score=SPECIES[shares.argmax()])
    node.append(predicate)
    for name, count in zip(SPECIES, counts, strict=True):
        SubElement(node, "ScoreDistribution", value=name, recordCount=str(count))
    if grown.children_left[index] < 0:
        return
    split = {"field": FEATURES[grown.feature[index]], "value": f"{grown.threshold[index]:.6g}"}
    add_node(node, model, grown.children_left[index], Element("SimplePredicate", operator="lessOrEqual", **split))
    add_node(node, model, grown.children_right[index], Element("SimplePredicate", operator="greaterThan", **split))


def main() -> None:
    """Write a decision tree of three levels."""
    features, species = load_iris(return_X_y=True)
    root = document(DecisionTreeClassifier(max_depth=3, random_state=0).fit(features, species))
    ElementTree.indent(root)
    file = Path(__file__).parent / "model" / "model.pmml"
    file.write_text(f"{ElementTree.tostring(root, encoding='unicode', xml_declaration=True)}\n")


if __name__ == "__main__":
    main()
