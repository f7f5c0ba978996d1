"""Merkle trees: roots of the field's own test vectors, another for every change, checkpoints read as written."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heimdall_assets.merkle import (
    EMPTY_ROOT,
    Checkpoint,
    compute_root,
    decode_checkpoint,
    hash_leaf,
)

# The inputs and roots that implementations of Certificate Transparency test themselves with (google/certificate-
# transparency, merkle_tree_test).
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
MANY = [hash_leaf(str(number).encode()) for number in range(40)]


def test_roots_are_those_of_certificate_transparency() -> None:
    leaves = [hash_leaf(entry) for entry in ENTRIES]
    assert [compute_root(leaves[: size + 1]).hex() for size in range(len(leaves))] == ROOTS
    assert compute_root([]) == EMPTY_ROOT == hashlib.sha256().digest()


@given(st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_any_change_of_order_or_content_changes_the_root(size: int, data: st.DataObject) -> None:
    leaves = MANY[:size]
    other = data.draw(st.permutations(leaves))
    assert (compute_root(other) == compute_root(leaves)) == (list(other) == leaves)


def test_a_leaf_is_no_pair_of_nodes() -> None:
    left, right = MANY[:2]
    assert compute_root([left, right]) != hash_leaf(left + right)  # a second preimage without the prefixes


@given(st.integers(1, 10**15), st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
@settings(max_examples=30, deadline=None)
def test_a_checkpoint_is_read_as_it_was_written_with_or_without_signatures(size: int, root: bytes, name: bytes) -> None:
    checkpoint = Checkpoint(name.hex(), size, root.hex())
    text = checkpoint.encode()
    assert text.count("\n") == 3
    assert decode_checkpoint(text) == decode_checkpoint(f"{text}\n\u2014 heimdall AAAA\n") == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "heimdall-assets/log/00\n1\n" + "A" * 43 + "=\n",
        f"other/{'0' * 32}\n1\n{'A' * 43}=\n",
        f"heimdall-assets/log/{'0' * 32}\n0\n{'A' * 43}=\n",
        f"heimdall-assets/log/{'0' * 32}\n1\n{'A' * 42}=\n",
        f"heimdall-assets/log/{'0' * 32}\n1\n{'A' * 43}=\nmore\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected heimdall-assets/log/NAME, a size and a root in base64"):
        decode_checkpoint(text)
