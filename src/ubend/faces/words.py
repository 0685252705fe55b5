"""What several faces say alike: the rules for objects, in a sentence."""

from ubend.run.contract import Contract
from ubend.run.normalisation import count

__all__ = ["rules_in_words"]


def rules_in_words(contract: Contract) -> str:
    """Say how foreground becomes objects.

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
    parted = "not parted"
    if rules.split > 0 and contract.learns_distance:
        parted = f"parted where the learned distance falls by {rules.split:g} from both sides"
    elif rules.split > 0:
        parted = f"parted at waists {rules.split:g} px deep"
    gap = f"gaps of {2 * rules.gap} px closed" if rules.gap else "gaps left"
    holes = "holes filled" if rules.fill_holes else "holes left"
    least = count(rules.smallest, "pixel")
    surest = f", one of at least {rules.surest:g}" if rules.surest > rules.threshold else ""
    border = "; without those at the border of the image" if rules.clear_border else ""
    return f"above a probability of {rules.threshold:g}; {parted}; at least {least}{surest}; {holes}; {gap}{border}"
