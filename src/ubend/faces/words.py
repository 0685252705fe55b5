"""What several faces say alike: the rules for objects, in a sentence."""

from ubend.run.contract import Contract
from ubend.run.normalisation import count

__all__ = ["rules_in_words"]


def rules_in_words(contract: Contract) -> str:
    """Say how foreground becomes objects, with the names and numbers by which other rules are asked for.

    Parameters
    ----------
    contract : Contract
        Of a model of single objects.

    Returns
    -------
    str
        A sentence without its full stop.
    """
    rules = contract.objects
    parted = f"cut apart at narrow places (split {rules.split:g}{'' if contract.learns_distance else ' px'})"
    dropped = [
        *[f"of fewer than {count(rules.smallest, 'pixel')} (smallest)"] * (rules.smallest > 1),
        *[f"below {rules.certainty:g} on average (certainty)"] * (rules.certainty > rules.threshold),
        *["cut by the border of the image"] * rules.clear_border,
    ]
    return "; ".join(
        [
            f"pixels of a probability above {rules.threshold:g} (threshold)",
            parted if rules.split > 0 else "not cut apart",
            f"without objects {' or '.join(dropped)}" if dropped else "none dropped",
            "holes filled" if rules.fill_holes else "holes kept",
            f"{count(2 * rules.gap, 'pixel')} between neighbours closed (gap {rules.gap})"
            if rules.gap
            else "gaps between them kept",
        ]
    )
