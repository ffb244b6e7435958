"""All actions by name."""

from collections.abc import Mapping

from stclip.puppet.draw.everyday import EVERYDAY
from stclip.puppet.draw.more_actions import MORE
from stclip.puppet.draw.motion import Action
from stclip.puppet.draw.sports import SPORTS

# In alphabetical order, as J-HMDB numbers them.
ACTIONS: Mapping[str, Action] = {
    action.name: action for action in sorted((*EVERYDAY, *SPORTS), key=lambda action: action.name)
}

# Only for pre-training.
EXTRA_ACTIONS: Mapping[str, Action] = {action.name: action for action in MORE}
