"""The verbs that measure."""

from engine.commands.arguments import finite, positive
from engine.commands.verbs import options


def _evaluate(verbs) -> None:
    verb = options.declare(
        verbs,
        "evaluate",
        "measure accuracy at the alphas given (default: zero-shot), with 95 % Wilson intervals",
        "nonlinear: accuracy of f(x; theta_0 + sum_t alpha_t tau_t), Eq. 1."
        "\nposthoc and linear: accuracy of f_lin(x; theta_0 + sum_t alpha_t tau_t), Eq. 3, with"
        "\ntau_t trained non-linearly or in the tangent space.",
        "evaluate --mode linear --alphas handwriting=0.5 signs=-0.3",
    )
    options.encoder(verb)
    options.mode(verb)
    options.tasks(verb)
    options.alphas(verb)
    options.merging(verb)
    verb.add_argument("--split", choices=("train", "validation", "test"), default="test")
    verb.add_argument("--limit", type=positive, metavar="N", help="the first N images a task only")
    verb.add_argument(
        "--control",
        default="objects",
        metavar="T",
        help="task measured beside them, or none (default: objects)",
    )
    options.device(verb)


def _addition(verbs) -> None:
    verb = options.declare(
        verbs,
        "addition",
        "run the task addition benchmark: alpha chosen on validation, then one run on test",
        "alpha in 0, 0.05 .. 1 that maximises, on validation, the normalized accuracy of Eq. 7,"
        "\n1/T sum_t acc_t[f(x; theta_0 + alpha sum_s tau_s)] / acc_t[f(x; theta_0 + tau_t)];"
        "\nf is f_lin of Eq. 3 for posthoc and linear. The answer is kept.",
        "addition --mode linear --json",
    )
    options.encoder(verb)
    options.mode(verb)
    options.seed(verb)
    options.tasks(verb)
    options.merging(verb)
    options.method(verb)
    verb.add_argument(
        "--each",
        action="store_true",
        help="an alpha for each task, optimised in function space; posthoc and linear only",
    )
    verb.add_argument("--limit", type=positive, metavar="N", help="the first N images a split only")
    verb.add_argument("--force", action="store_true", help="measure again what is kept")
    options.device(verb)


def _negation(verbs) -> None:
    verb = options.declare(
        verbs,
        "negation",
        "run the task negation benchmark: forget a task, keep the control task",
        "for each task t the alpha in 0, 0.05 .. 1 that minimises, on validation,"
        "\nacc_t[f(x; theta_0 - alpha tau_t)] while the control task keeps 95 % of its accuracy;"
        "\nf is f_lin of Eq. 3 for posthoc and linear. The answer is kept. With --method all tasks"
        "\nare forgotten at once: the one alpha in 0, 0.05 .. 2 that minimises the mean over t of"
        "\nacc_t[f(x; theta_0 - alpha m(tau_1, .., tau_T))], m the method's direction.",
        "negation --mode linear --json",
    )
    options.encoder(verb)
    options.mode(verb)
    options.seed(verb)
    options.tasks(verb)
    options.method(
        verb,
        (*options.CONVENTIONS, *options.METHODS),
        "subtract along the direction that a method makes of all tasks, alpha up to 2",
    )
    verb.add_argument(
        "--control", default="objects", metavar="T", help="task to keep (default: objects)"
    )
    verb.add_argument(
        "--keep",
        type=finite,
        default=0.95,
        metavar="X",
        help="share of the control accuracy that must be left (default: 0.95)",
    )
    verb.add_argument("--limit", type=positive, metavar="N", help="the first N images a split only")
    verb.add_argument("--force", action="store_true", help="measure again what is kept")
    options.device(verb)


def _disentanglement(verbs) -> None:
    verb = options.declare(
        verbs,
        "disentanglement",
        "map how two task vectors disturb each other, over a grid of both alphas",
        "xi(alpha_1, alpha_2) = sum over both tasks t of E_{x of task t} dist(f(x; theta_0 +"
        "\nalpha_t tau_t), f(x; theta_0 + alpha_1 tau_1 + alpha_2 tau_2)), Eq. 6; f is f_lin of"
        "\nEq. 3 for posthoc and linear. Non-linear maps are kept; stopped, one resumes.",
        "disentanglement --tasks handwriting signs --mode posthoc --json",
    )
    options.encoder(verb)
    options.tasks(
        verb, "none: a map needs two; --all-pairs, --matrix, --diagonal: the miniature's eight"
    )
    options.mode(verb)
    options.seed(verb)
    verb.add_argument("--grid", type=positive, default=20, metavar="G", help="alphas (default: 20)")
    verb.add_argument(
        "--range",
        type=finite,
        nargs="+",
        default=[3.0],
        metavar="R",
        help="alphas from -R to R (default: 3), or from the first to the second of two",
    )
    verb.add_argument(
        "--distance",
        choices=("error", "tv", "kl"),
        default="error",
        help="of predictions (default), or of soft-max outputs: total variation, symmetrised KL",
    )
    verb.add_argument(
        "--images",
        type=positive,
        default=2048,
        metavar="N",
        help="the first N test images a task at most (default: 2048)",
    )
    verb.add_argument("--all-pairs", action="store_true", help="a map of every pair of the tasks")
    verb.add_argument("--matrix", action="store_true", help="every pair at one alpha")
    verb.add_argument("--alpha", type=finite, metavar="A", help="of --matrix (default: 1)")
    verb.add_argument("--diagonal", action="store_true", help="all tasks at once, along alpha")
    verb.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "auto"),
        default="float32",
        help="of non-linear passes; bfloat16 is approximate, says what it changed and gives way "
        "to float32 where that is over 1 %% of predictions; auto: bfloat16 on a GPU that has it",
    )
    verb.add_argument("--force", action="store_true", help="compute again what is kept")
    _shards(verb, "the cells of a non-linear map")
    options.device(verb)


def _ntk(verbs) -> None:
    verb = options.declare(
        verbs,
        "ntk",
        "measure where the eigenfunctions of the tangent kernel live: local energy on two tasks",
        "k(x, x') = grad f_c(x; theta_0) . grad f_c(x'; theta_0) between n points of the task and"
        "\nthose and n of the control, K = U S V^T, E(x_j) = sum_rho V_j,rho^2: Sec. 6.1, Fig. 6."
        "\nBeside it the same for two halves of the task, and for columns that are no rows."
        "\n--json: local_energy, heldout_energy (all eigenfunctions), leading_energy and"
        "\nridge_energy (by R and L asked for), localization_auc, corrected_auc (held-out columns;"
        "\nalso _leading, _ridge), scores (with 95 % intervals), spectrum (singular values of the"
        "\nn x 2n kernel), eigvals (of the square one), layers (shares of its trace), layer_scores"
        "\n(--layer-scores), captured and regression (with a linear task vector), content (what"
        "\nit rests on). Several controls: pairs, a list of these.",
        "ntk --encoder miniature --task letters --control objects --points 200 --json",
    )
    options.encoder(verb)
    verb.add_argument("--task", required=True, metavar="T", help="its points are the rows")
    verb.add_argument("--control", nargs="+", default=["objects"], metavar="T")
    verb.add_argument("--points", type=positive, default=200, metavar="N", help="of each block")
    verb.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="draw from the first N train images (default: 20 a point, at least 2,000; the "
        "miniature's from all of them)",
    )
    verb.add_argument(
        "--logits",
        nargs="+",
        default=["3"],
        metavar="L",
        help="so many classes, all, trace (the sum over all), or names of classes (default: 3)",
    )
    verb.add_argument(
        "--readout",
        choices=("cosine", "score"),
        default="cosine",
        help="a logit is w.z/|z| or w.z (default: cosine)",
    )
    verb.add_argument(
        "--algorithm", choices=("auto", "layerwise", "jacobian", "products"), default="auto"
    )
    verb.add_argument(
        "--layer-scores",
        action="store_true",
        help="the held-out score of each block's own kernel too; costs memory, not passes",
    )
    verb.add_argument(
        "--leading",
        type=positive,
        nargs="+",
        default=[],
        metavar="R",
        help="energies of the R leading eigenfunctions too",
    )
    verb.add_argument(
        "--ridge",
        type=finite,
        nargs="+",
        default=[],
        metavar="L",
        help="energies weighted by s^2 / (s^2 + l^2) too, l = L times the largest singular value",
    )
    verb.add_argument(
        "--regression",
        action="store_true",
        help="refuse to go on without a linearly fine-tuned task vector, against which kernel "
        "regression on the task's points is measured",
    )
    verb.add_argument("--batch", type=positive, metavar="N", help="images a pass, at most")
    verb.add_argument(
        "--memory", type=positive, metavar="MB", help="beyond the encoder (default: half of free)"
    )
    verb.add_argument("--precision", choices=("auto", "float32", "float64"), default="auto")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of points")
    verb.add_argument("--force", action="store_true", help="measure again what is kept")
    _shards(verb, "the logits' kernels")
    options.device(verb)


def _shards(verb, what: str) -> None:
    """Add how a heavy measure is divided among jobs."""
    verb.add_argument(
        "--shards",
        type=positive,
        default=1,
        metavar="N",
        help=f"divide {what}; with --background N jobs and one that merges what they saved",
    )
    verb.add_argument(
        "--shard", type=positive, metavar="K", help="compute and save the K-th share alone"
    )


VERBS = (_evaluate, _addition, _negation, _disentanglement, _ntk)
