"""The rows of a proof in the order in which a reader wants them."""

from __future__ import annotations

from edgekit.proof.compare import Proof, RowProof


def differing_rows(proof: Proof) -> list[RowProof]:
    """Rows that device and trained model answer differently: the largest loss first, then by KL."""
    different = [row for row in proof.rows if row.torch != row.device]
    return sorted(different, key=lambda row: (row.device_score - row.torch_score, -(row.kl or 0)))


def alike_rows(proof: Proof) -> list[RowProof]:
    """The others, the worst answer first."""
    return sorted((row for row in proof.rows if row.torch == row.device), key=lambda row: row.device_score)
