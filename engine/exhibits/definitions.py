"""The exhibits by name: what each says, needs and costs."""

from engine.exhibits.exhibit import Column, Exhibit
from engine.tasks import TASKS

TANGENT = "2305.12827"  # Ortiz-Jimenez et al. (2023), Task Arithmetic in the Tangent Space
RANDOM = "-random"  # behind the miniature's name
READINGS = {
    "nonlinear": "Non-linear FT",
    "posthoc": "Post-hoc linearization",
    "linear": "Linear FT",
}
# pairs of the miniature's tasks that maps are drawn of: alike and unalike ones
PAIRS = (
    ("handwriting", "sites"),
    ("handwriting", "housenumbers"),
    ("letters", "textures"),
    ("signs", "vehicles"),
    ("landuse", "sites"),
    ("housenumbers", "letters"),
)
RANDOM_PAIRS = PAIRS[:3]
MAP_IMAGES = 250  # of the miniature's 1,000 a task: a map takes 800 settings of each image
POINTS, LOGITS = 200, 2  # of local energies; 200 as in App. A

ABSOLUTE = Column("absolute", "Abs.", better="up")
NORMALIZED = Column("normalized", "Norm.", better="up")
ALPHA = Column("alpha", "alpha", "number")


def twin(encoder: str) -> str | None:
    """Name the randomly initialised twin of an encoder.

    Args:
        encoder: Its name.

    Returns:
        The twin's name, the encoder's own if it is random itself.
    """
    architecture, colon, tag = encoder.partition(":")
    if colon:
        return encoder if tag.startswith("random") else f"{architecture}:random"
    return encoder if encoder.endswith(RANDOM) else f"{encoder}{RANDOM}"


def _convolutional(encoder: str) -> str | None:
    return encoder if encoder.lower().startswith("convnext") else None


def _closed(encoder: str) -> str | None:
    return encoder if encoder.startswith("timm/") else None


def reading_columns(titled: str = "{}", **about: str) -> tuple[Column, ...]:
    """Give one column a reading."""
    return tuple(Column(mode, titled.format(title), **about) for mode, title in READINGS.items())


_ADDITION = (
    "The model f(x; theta_0 + alpha sum_t tau_t), for linearized readings f_lin (Eq. 3): its test"
    " accuracy, mean over the tasks (Abs.), and Norm. = 1/T sum_t acc_t(merged) / acc_t(theta_0 +"
    " tau_t) (Eq. 7). One alpha of 0, 0.05 .. 1 for all tasks, chosen on validation by Norm., for"
    " each reading apart (App. A)."
)
_CHECKPOINTS = "Task vectors of every task, fine-tuned non-linearly and linearly with one seed."
_COST = (
    "Of each reading, 21 passes over validation and 3 over test; linearized ones 1 + 1.4 T, "
    "then algebra."
)


def _addition(name: str, title: str, where: str, **more) -> Exhibit:
    columns = (ABSOLUTE, NORMALIZED, ALPHA)
    return Exhibit(name, title, where, TANGENT, _ADDITION, _CHECKPOINTS, _COST, columns, **more)


_ALL = (
    Exhibit(
        "single",
        "Single-task accuracies",
        "Figures 2, 5 and 8",
        TANGENT,
        "Test accuracy of each task with its own task vector at alpha = 1: f(x; theta_0 + tau_t),"
        " its post-hoc linearization f_lin(x; theta_0 + tau_t), and f_lin(x; theta_0 + tau_lin,t)"
        " fine-tuned in the tangent space.",
        _CHECKPOINTS,
        "Nothing beyond task addition, whose answers hold them.",
        (Column("pretrained", "Pre-trained", better="up"), *reading_columns(better="up")),
    ),
    _addition("addition", "Task addition", "Table 1"),
    Exhibit(
        "addition-tasks",
        "Task addition, task by task",
        "Figure 9",
        TANGENT,
        "Test accuracy of each task with all task vectors added at the alpha of Table 1.",
        _CHECKPOINTS,
        "Nothing beyond task addition.",
        (Column("pretrained", "Pre-trained", better="up"), *reading_columns(better="up")),
    ),
    Exhibit(
        "negation",
        "Task negation",
        "Table 2",
        TANGENT,
        "The model f(x; theta_0 - alpha tau_t): its test accuracy on the task forgotten (target) "
        "and on the control task, means over the tasks. Of alpha 0, 0.05 .. 1 the one, for each "
        "task, with the least target accuracy that keeps 95 % of the pre-trained control "
        "accuracy, both on validation (App. A).",
        f"{_CHECKPOINTS} A control task; the paper's is ImageNet.",
        "Of each reading and task, 21 passes over both validation splits and 2 over test.",
        (
            Column("target", "Target", better="down"),
            Column("control", "Control", better="up"),
            Column("alpha", "alpha (mean)", "number"),
        ),
    ),
    Exhibit(
        "random",
        "Task addition from random initialisation",
        "Table 3 and Figure 17",
        TANGENT,
        "Table 1 with task vectors of the same architecture fine-tuned from random weights: mean "
        "test accuracy of single tasks after fine-tuning, and of the sum.",
        "Task vectors of the randomly initialised twin.",
        "As task addition.",
        (Column("single", "Single", better="up"), Column("multi", "Multi", better="up"), ALPHA),
        twin,
    ),
    _addition(
        "convnext",
        "Task addition with a convolutional network",
        "Table 4",
        stands_for=_convolutional,
        otherwise="needs a ConvNeXt of open_clip, as --encoder convnext_base:laion400m_s13b_b51k",
    ),
    _addition(
        "closed",
        "Task addition with a closed vocabulary",
        "Table 5",
        stands_for=_closed,
        otherwise="needs a supervised encoder, as --encoder timm/vit_base_patch16_224:augreg_in1k",
    ),
    Exhibit(
        "disentanglement",
        "Disentanglement error",
        "Figures 3 and 10 - 14",
        TANGENT,
        "xi(a_1, a_2) = sum over both tasks t of the share of test images of t on which f(x; "
        "theta_0 + a_t tau_t) and f(x; theta_0 + a_1 tau_1 + a_2 tau_2) predict another class "
        "(Eq. 6), 0 .. 2, on a 20 x 20 grid over [-3, 3]^2. The box [0, 1]^2 is where alpha is "
        "looked for.",
        "Task vectors of a pair in both modes; the paper takes 2,048 test images a task.",
        "A non-linear map: 440 settings of each image; linearized ones follow from stored "
        "responses.",
        reading_columns(better="down"),
    ),
    Exhibit(
        "energy",
        "Local energy of the tangent kernel's eigenfunctions",
        "Figures 6, 15 and 16",
        TANGENT,
        "E_loc(x) = sum_rho phi_rho(x)^2 over the right singular vectors of the n x 2n tangent "
        "kernel between n points of a task and n of the task and of the control each (Sec. 6.1). "
        "AUC: the area under the ROC curve between both blocks of columns; 'held out' has no row "
        "among its columns and is the score to quote, 'null' is the paper's curve with further "
        "points of the same task in the control's place.",
        "The encoder alone, at theta_0, and its randomly initialised twin; 200 training points a "
        "task.",
        "n Jacobians of each logit.",
        (
            Column("paper", "AUC, paper", "number"),
            Column("null", "AUC, null", "number"),
            Column("heldout", "AUC, held out", "number", "up"),
        ),
    ),
    Exhibit(
        "merging",
        "Merging methods beside the sum",
        "",
        "",
        "Task addition along another direction than the sum: theta_0 + alpha m(tau_1 .. tau_T), "
        "each method m with its usual hyper-parameters, alpha of 0, 0.05 .. 2 chosen on "
        "validation; the sum and the mean up to alpha = 1, as in Table 1. With an alpha for each "
        "task, each in [-1, 2] and searched for in function space, the table shows their mean. "
        "Formulas and sources stand with the functions in engine/merging.",
        _CHECKPOINTS,
        "Non-linear, 41 passes over validation a method; linearized, one further product a method.",
        (*reading_columns(better="up"),),
    ),
)

EXHIBITS: dict[str, Exhibit] = {exhibit.name: exhibit for exhibit in _ALL}


def pairs_of(tasks: tuple[str, ...], random: bool) -> tuple[tuple[str, str], ...]:
    """Choose the pairs that maps are drawn of.

    Args:
        tasks: Names.
        random: Whether of the randomly initialised twin.

    Returns:
        The chosen pairs of the miniature's tasks; of others each task and the next, three at most.
    """
    if set(tasks) <= set(TASKS):
        chosen = RANDOM_PAIRS if random else PAIRS
        found = tuple(pair for pair in chosen if set(pair) <= set(tasks))
        if found:
            return found
    return tuple(zip(tasks, tasks[1:], strict=False))[:3]
