"""Which rows a rank may hold."""

from verify.engines.inside.rows import PADDING, maps, others

LENGTHS = [1, 2, 1]
SHARES = [[0, 2], [1]]


def held(count, group=0, ranks=4):
    return maps(count, lengths=LENGTHS, shares=SHARES, group=group, ranks=ranks)


def test_a_group_has_its_own_rows_first_and_padding_after_them():
    assert held(2)[0] == (0, 3)
    assert held(3)[0] == (0, 3, PADDING)
    assert held(2, group=1)[0] == (1, 2)


def test_all_groups_rows_come_one_group_after_another():
    assert (0, 3, 1, 2) in held(4)


def test_groups_may_be_padded_to_the_largest():
    found = maps(6, lengths=[1, 1, 1, 1], shares=[[0, 1, 2], [3]], group=1, ranks=2)
    assert (0, 1, 2, 3, PADDING, PADDING) in found


def test_ranks_may_share_rows_in_equal_pieces():
    assert {(0, 3), (1, 2)} <= set(held(2))


def test_padding_alone_says_nothing():
    assert all(set(each) != {PADDING} for count in range(1, 9) for each in held(count))


def test_the_other_groups_rows():
    assert others(2, lengths=LENGTHS, shares=SHARES, group=0) == [(1, 2)]
