"""Merkle trees: the field's own test vectors, proofs against the definitions, checkpoints read as written."""

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
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
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
# From the same tests (merkle_verifier_test): leaf counted from 1, size, path; and old size, size, proof.
PATHS = [
    (1, 1, ""),
    (1, 8, "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
           "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
           "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
    (6, 8, "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
           "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
           "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    (3, 3, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    (2, 5, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
           "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
           "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
]  # fmt: skip
PROOFS = [
    (1, 1, ""),
    (1, 8, "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
           "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
           "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
    (6, 8, "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
           "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
           "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    (2, 5, "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
           "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
]  # fmt: skip
MANY = [hash_leaf(str(number).encode()) for number in range(70)]
FORGED = hash_leaf(b"forged")
SIZES = st.integers(1, len(MANY))


def test_roots_are_those_of_certificate_transparency() -> None:
    leaves = [hash_leaf(entry) for entry in ENTRIES]
    assert [compute_root(leaves[: size + 1]).hex() for size in range(len(leaves))] == ROOTS
    assert compute_root([]) == EMPTY_ROOT == hashlib.sha256().digest()


def test_proofs_are_those_of_certificate_transparency() -> None:
    leaves = [hash_leaf(entry) for entry in ENTRIES]
    for place, size, path in PATHS:
        assert b"".join(prove_inclusion(leaves[:size], place - 1)).hex() == path
    for old, size, proof in PROOFS:
        assert b"".join(prove_consistency(leaves[:size], old)).hex() == proof


def test_proofs_are_those_of_the_example_in_rfc_6962() -> None:
    """Section 2.1.3: the tree over seven leaves, whose nodes it calls a to l."""
    leaves = MANY[:7]
    a, b, c, d, e, f, j = leaves
    g, h, i = (_pair(left, right) for left, right in ((a, b), (c, d), (e, f)))
    k = _pair(g, h)
    l_node = _pair(i, j)
    assert compute_root(leaves) == _pair(k, l_node)
    assert [prove_inclusion(leaves, index) for index in (0, 3, 4, 6)] == [
        [b, h, l_node],
        [c, g, l_node],
        [f, j, k],
        [i, k],
    ]
    assert [prove_consistency(leaves, size) for size in (3, 4, 6)] == [[c, d, g, l_node], [l_node], [i, j, k]]


def _pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def rebuild(size: int, known: dict[tuple[int, int], bytes], first: int = 0) -> bytes | None:
    """The root over ``size`` leaves from ``first`` on, by the definition of the tree, from the nodes that are known."""
    if (first, size) in known:
        return known[first, size]
    if size == 1:
        return None
    split = max(2**power for power in range(8) if 2**power < size)
    left, right = rebuild(split, known, first), rebuild(size - split, known, first + split)
    return None if left is None or right is None else _pair(left, right)


def list_siblings(index: int, size: int, first: int = 0) -> list[tuple[int, int]]:
    """Which nodes, as first leaf and size, stand beside the way from leaf ``index`` to the root, from below."""
    if size == 1:
        return []
    split = max(2**power for power in range(8) if 2**power < size)
    if index < split:
        return [*list_siblings(index, split, first), (first + split, size - split)]
    return [*list_siblings(index - split, size - split, first + split), (first, split)]


@pytest.mark.parametrize("size", range(1, len(MANY) + 1))
def test_every_leaf_is_proved_and_no_other_leaf_place_or_size_is(size: int) -> None:
    leaves, root = MANY[:size], compute_root(MANY[:size])
    for index, leaf in enumerate(leaves):
        proof = prove_inclusion(leaves, index)
        assert rebuild(size, {(index, 1): leaf, **dict(zip(list_siblings(index, size), proof, strict=True))}) == root
        assert len(proof) <= (size - 1).bit_length()
        assert verify_inclusion(leaf, index, (size, root), proof)
        assert not verify_inclusion(FORGED, index, (size, root), proof)
        assert not any(verify_inclusion(leaf, other, (size, root), proof) for other in range(size) if other != index)
        assert not verify_inclusion(leaf, index, (size, root), [*proof, root])
        assert not verify_inclusion(leaf, index, (size, root), proof[:-1]) or not proof
        assert not verify_inclusion(leaf, index, (index, root), proof)
        assert not verify_inclusion(leaf, index, (size, FORGED), proof)


@pytest.mark.parametrize("size", range(1, len(MANY) + 1))
def test_a_log_that_only_grew_is_told_from_one_that_was_rewritten(size: int) -> None:
    leaves, root = MANY[:size], compute_root(MANY[:size])
    for old in range(1, size + 1):
        old_root, proof = compute_root(MANY[:old]), prove_consistency(leaves, old)
        assert len(proof) <= (size - 1).bit_length() + 1
        assert verify_consistency((old, old_root), (size, root), proof)
        rewritten = compute_root([*MANY[: old - 1], FORGED])
        assert not verify_consistency((old, rewritten), (size, root), proof)
        assert not verify_consistency((old, old_root), (size, FORGED), proof)
        for place in range(len(proof)):
            changed = [*proof[:place], FORGED, *proof[place + 1 :]]
            assert not verify_consistency((old, old_root), (size, root), changed)
        if old < size:
            assert not verify_consistency((old, old_root), (size, root), proof[:-1])
            assert not verify_consistency((size, root), (old, old_root), proof)
        assert not verify_consistency((old, old_root), (size, root), [*proof, root])


@given(SIZES, SIZES, st.lists(st.sampled_from([*MANY, FORGED, EMPTY_ROOT]), max_size=8))
@settings(max_examples=300, deadline=None)
def test_no_list_of_hashes_but_the_proof_shows_anything(old: int, size: int, proof: list[bytes]) -> None:
    trees = [(count, compute_root(MANY[:count])) for count in (old, size)]
    holds = old <= size and proof == prove_consistency(MANY[:size], old)
    assert verify_consistency(trees[0], trees[1], proof) == holds
    index = old - 1
    holds = index < size and proof == prove_inclusion(MANY[:size], index)
    assert verify_inclusion(MANY[index], index, trees[1], proof) == holds


def test_what_is_not_there_is_not_proved() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"leaf {index}: found 3 of them"):
            prove_inclusion(MANY[:3], index)
    for size in (0, 4):
        with pytest.raises(IndexError, match=f"size {size}: found 3 of them"):
            prove_consistency(MANY[:3], size)
        assert not verify_consistency((size, FORGED), (3, FORGED), [])


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
