"""All actions by name."""

from collections.abc import Mapping

from stclip.data.puppet.everyday import EVERYDAY
from stclip.data.puppet.more_actions import MORE
from stclip.data.puppet.motion import Action
from stclip.data.puppet.sports import SPORTS

# In alphabetical order, as J-HMDB numbers them.
ACTIONS: Mapping[str, Action] = {
    action.name: action for action in sorted((*EVERYDAY, *SPORTS), key=lambda action: action.name)
}

# Only for pre-training.
EXTRA_ACTIONS: Mapping[str, Action] = {action.name: action for action in MORE}
