"""The proof: exported files against the trained model, on the device's engine."""

from edgekit.proof.compare import Proof, prove
from edgekit.proof.origin import Origin
from edgekit.proof.reference import Reference, take_reference
from edgekit.proof.report import write_report
from edgekit.proof.verdict import refusals

__all__ = ["Origin", "Proof", "Reference", "prove", "refusals", "take_reference", "write_report"]
