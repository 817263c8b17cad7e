"""Keys of the session and of the address, each named once; what a view is, and its address.

Everything here is a pure function of plain values: no widget is drawn and nothing is computed.
Pages write ``state.NAME``, whichever module says it.
"""

from app.state.address import *  # noqa: F403
from app.state.bring import *  # noqa: F403
from app.state.disentanglement import *  # noqa: F403
from app.state.finetune import *  # noqa: F403
from app.state.gradients import *  # noqa: F403
from app.state.keys import *  # noqa: F403
from app.state.merge import *  # noqa: F403
from app.state.negation import *  # noqa: F403
from app.state.ntk import *  # noqa: F403
from app.state.results import *  # noqa: F403
