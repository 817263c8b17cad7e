"""The verbs, their options and the equation each computes; light, so that ``--help`` is quick."""

import argparse
from collections.abc import Callable, Sequence

from engine.commands.arguments import OneSentenceParser, alpha_of_task, finite, positive

MODES = ("nonlinear", "posthoc", "linear")
METHODS = ("ties", "dare", "breadcrumbs", "consensus", "tsv", "iso-c", "iso-cts", "lines")
PAPER = "Equations: Task Arithmetic in the Tangent Space, arXiv:2305.12827."


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m engine``.

    Returns:
        A parser whose namespace holds ``verb`` and that verb's options.
    """
    parser = OneSentenceParser(
        prog="python -m engine",
        description="Task vectors by hand: fine-tune, merge, measure. Every verb takes --json.",
        epilog=PAPER,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for declare in (*LISTINGS, *TRAININGS, *MEASURES, *EXPORTS):
        declare(verbs)
    for name, verb in verbs.choices.items():
        if name != "jobs":
            _background(verb)
    return parser


def _verb(verbs: argparse._SubParsersAction, name: str, does: str, equation: str, example: str):
    """Return a new verb with the options every verb has."""
    verb = verbs.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.\n\n{equation}",
        epilog=f"example:\n  python -m engine {example}\n\n{PAPER}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, nothing else"
    )
    verb.add_argument(
        "--cache",
        metavar="DIR",
        help="where results are kept (default: $TAUSCOPE_CACHE, else cache/local)",
    )
    return verb


def _background(verb: argparse.ArgumentParser) -> None:
    later = verb.add_argument_group("in the background, as a job")
    later.add_argument(
        "--background", action="store_true", help='queue it and print {"job": ID}; see: jobs --help'
    )
    later.add_argument("--on", choices=("local", "slurm"), help="where (default: local)")
    later.add_argument(
        "--slurm",
        nargs="+",
        metavar="NAME=VALUE",
        help="for --on slurm: partition=, minutes=, gpus=, cpus=, memory_gb=, array=, or any "
        "option of sbatch, as in constraint=a100; docs/jobs.md says where defaults lie",
    )
    later.add_argument("--priority", type=int, default=0, metavar="N", help="higher first")
    later.add_argument(
        "--after", nargs="+", default=(), metavar="ID", help="jobs that must be done before"
    )


def _device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    verb.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: torch's)"
    )


def _encoder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--encoder",
        default="miniature",
        metavar="E",
        help="miniature (default), miniature-random, or NAME:TAG or NAME:FILE of open_clip, "
        "as in ViT-B-32-quickgelu:openai",
    )


def _tasks(verb: argparse.ArgumentParser, what: str = "the miniature's eight") -> None:
    verb.add_argument(
        "--tasks",
        nargs="+",
        metavar="T",
        help=f"names of the miniature's tasks or paths of your own (default: {what})",
    )


def _mode(verb: argparse.ArgumentParser, modes: Sequence[str] = MODES) -> None:
    verb.add_argument(
        "--mode",
        choices=modes,
        default="nonlinear",
        help="how the weights are trained and read (default: nonlinear)",
    )


def _merging(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--convention",
        choices=("sum", "mean"),
        default="sum",
        help="sum: alpha as it is (Eq. 1); mean: every alpha divided by the number of tasks",
    )


def _method(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--method",
        choices=METHODS,
        metavar="M",
        help=f"merge by another method than the sum, alpha up to 2: {', '.join(METHODS)}",
    )
    verb.add_argument(
        "--option",
        nargs="+",
        type=alpha_of_task,
        metavar="NAME=X",
        default=[],
        help="hyper-parameters of the method, as in density=0.1",
    )


def _alphas(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--alphas",
        nargs="+",
        type=alpha_of_task,
        metavar="TASK=A",
        help="a coefficient a task; those not named get 0",
    )
    verb.add_argument("--alpha", type=finite, metavar="A", help="one coefficient for every task")


def _declare_encoders(verbs) -> None:
    _verb(
        verbs,
        "encoders",
        "list the encoders: parameters, size, digest, image size",
        "An encoder with its frozen head is f(x; theta_0), the pre-trained model of Eq. 1.",
        "encoders",
    )


def _declare_tasks(verbs) -> None:
    verb = _verb(
        verbs,
        "tasks",
        "list the tasks: classes, images, templates",
        "A task is the support D_t and the distribution mu_t on it of Eq. 1 and Eq. 7.",
        "tasks ~/pictures/birds",
    )
    verb.add_argument("paths", nargs="*", metavar="PATH", help="tasks of your own, shown as well")


def _declare_checkpoints(verbs) -> None:
    verb = _verb(
        verbs,
        "checkpoints",
        "list the task vectors at hand, and the files that are damaged",
        "A checkpoint holds tau_t = theta_t* - theta_0, the task vector of Eq. 1.",
        "checkpoints --encoder miniature --mode linear",
    )
    verb.add_argument("--encoder", metavar="E", help="only those of this encoder")
    verb.add_argument("--task", metavar="T", help="only those of this task")
    verb.add_argument("--mode", choices=("nonlinear", "linear"), help="only those trained so")


def _declare_pretrain(verbs) -> None:
    verb = _verb(
        verbs,
        "pretrain",
        "make the miniature encoder from its procedural world, and its randomly initialised twin",
        "Minimises the symmetric contrastive loss of CLIP over a batch of B pictures u_i and"
        "\ncaptions v_i: -1/2B sum_i [log softmax_j(s u_i.v_j)_i + log softmax_j(s u_j.v_i)_i],"
        "\ns the logit scale. The result is theta_0 of Eq. 1. Stopped, it resumes where it was.",
        "pretrain",
    )
    verb.add_argument("--images", type=positive, metavar="N", help="captioned pictures an epoch")
    verb.add_argument("--epochs", type=positive, metavar="N")
    verb.add_argument("--batch", type=positive, metavar="N")
    verb.add_argument("--rate", type=finite, metavar="R", help="peak learning rate")
    verb.add_argument("--seed", type=int, metavar="N")
    verb.add_argument("--weight-decay", type=finite, metavar="W")
    verb.add_argument(
        "--fresh",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="new pictures every epoch",
    )
    verb.add_argument(
        "--random-init",
        action="store_true",
        help="no training: the randomly initialised twin alone",
    )
    verb.add_argument("--force", action="store_true", help="again, though it is in the store")
    _device(verb)


def _declare_finetune(verbs) -> None:
    verb = _verb(
        verbs,
        "finetune",
        "fine-tune the encoder on tasks, one task vector each",
        "nonlinear: minimises the cross-entropy of f(x; theta_0 + tau) over tau, tau_t of Eq. 1."
        "\nlinear: the same of f_lin(x; theta_0 + tau) = f(x; theta_0) + tau . grad f(x; theta_0),"
        "\nthe first-order expansion of Eq. 2 trained by itself, Eq. 3."
        "\nStopped, it resumes where it was; a task already done with the same recipe is skipped.",
        "finetune --mode linear --tasks handwriting signs",
    )
    _encoder(verb)
    _tasks(verb)
    _mode(verb, ("nonlinear", "linear"))
    verb.add_argument("--steps", type=positive, metavar="N")
    verb.add_argument("--batch", type=positive, metavar="N")
    verb.add_argument("--rate", type=finite, metavar="R", help="peak learning rate")
    verb.add_argument("--warmup", type=int, metavar="N", help="steps of linear warm-up")
    verb.add_argument("--weight-decay", type=finite, metavar="W")
    verb.add_argument("--seed", type=int, metavar="N")
    verb.add_argument(
        "--checkpoint-every", type=positive, metavar="N", help="steps between working states"
    )
    verb.add_argument("--accumulate", type=positive, metavar="N", help="pieces of a batch")
    verb.add_argument("--augment", choices=("none", "shift", "crop"))
    verb.add_argument("--precision", choices=("auto", "float32", "bfloat16"))
    verb.add_argument(
        "--limit", type=positive, metavar="N", help="train on the first N images only"
    )
    verb.add_argument(
        "--half",
        action="store_true",
        help="store tau as float16: the rounded tau then is the checkpoint, and is measured",
    )
    verb.add_argument("--force", action="store_true", help="train again what is in the store")
    verb.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="share every batch among N processes of this machine, a GPU each; or start the "
        "command itself with torchrun",
    )
    _device(verb)


def _declare_evaluate(verbs) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        "measure accuracy at the alphas given (default: zero-shot), with 95 % Wilson intervals",
        "nonlinear: accuracy of f(x; theta_0 + sum_t alpha_t tau_t), Eq. 1."
        "\nposthoc and linear: accuracy of f_lin(x; theta_0 + sum_t alpha_t tau_t), Eq. 3, with"
        "\ntau_t trained non-linearly or in the tangent space.",
        "evaluate --mode linear --alphas handwriting=0.5 signs=-0.3",
    )
    _encoder(verb)
    _mode(verb)
    _tasks(verb)
    _alphas(verb)
    _merging(verb)
    verb.add_argument("--split", choices=("train", "validation", "test"), default="test")
    verb.add_argument("--limit", type=positive, metavar="N", help="the first N images a task only")
    verb.add_argument(
        "--control",
        default="objects",
        metavar="T",
        help="task measured beside them, or none (default: objects)",
    )
    _device(verb)


def _declare_addition(verbs) -> None:
    verb = _verb(
        verbs,
        "addition",
        "run the task addition benchmark: alpha chosen on validation, then one run on test",
        "alpha in 0, 0.05 .. 1 that maximises, on validation, the normalized accuracy of Eq. 7,"
        "\n1/T sum_t acc_t[f(x; theta_0 + alpha sum_s tau_s)] / acc_t[f(x; theta_0 + tau_t)];"
        "\nf is f_lin of Eq. 3 for posthoc and linear. The answer is kept.",
        "addition --mode linear --json",
    )
    _encoder(verb)
    _mode(verb)
    _tasks(verb)
    _merging(verb)
    _method(verb)
    verb.add_argument("--limit", type=positive, metavar="N", help="the first N images a split only")
    verb.add_argument("--force", action="store_true", help="measure again what is kept")
    _device(verb)


def _declare_negation(verbs) -> None:
    verb = _verb(
        verbs,
        "negation",
        "run the task negation benchmark: forget a task, keep the control task",
        "for each task t the alpha in 0, 0.05 .. 1 that minimises, on validation,"
        "\nacc_t[f(x; theta_0 - alpha tau_t)] while the control task keeps 95 % of its accuracy;"
        "\nf is f_lin of Eq. 3 for posthoc and linear. The answer is kept.",
        "negation --mode linear --json",
    )
    _encoder(verb)
    _mode(verb)
    _tasks(verb)
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
    _device(verb)


def _declare_disentanglement(verbs) -> None:
    verb = _verb(
        verbs,
        "disentanglement",
        "map how two task vectors disturb each other, over a grid of both alphas",
        "xi(alpha_1, alpha_2) = sum over both tasks t of E_{x of task t} dist(f(x; theta_0 +"
        "\nalpha_t tau_t), f(x; theta_0 + alpha_1 tau_1 + alpha_2 tau_2)), Eq. 6; f is f_lin of"
        "\nEq. 3 for posthoc and linear. Non-linear maps are kept; stopped, one resumes.",
        "disentanglement --tasks handwriting signs --mode posthoc --json",
    )
    _encoder(verb)
    _tasks(verb, "none: a map needs two; --all-pairs, --matrix, --diagonal: the miniature's eight")
    _mode(verb)
    verb.add_argument("--grid", type=positive, default=20, metavar="G", help="alphas (default: 20)")
    verb.add_argument(
        "--range", type=finite, default=3.0, metavar="R", help="alphas from -R to R (default: 3)"
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
        choices=("float32", "bfloat16"),
        default="float32",
        help="of non-linear passes; bfloat16 is approximate and says what it changed",
    )
    verb.add_argument("--force", action="store_true", help="compute again what is kept")
    _device(verb)


def _declare_merge(verbs) -> None:
    verb = _verb(
        verbs,
        "merge",
        "write the merged weights as safetensors, for open_clip",
        "nonlinear: theta_0 + sum_t alpha_t tau_t, Eq. 1, under open_clip's names visual.*"
        "\nposthoc and linear: f_lin of Eq. 3 needs theta_0 and tau apart, so what is written is"
        "\ntau = sum_t alpha_t tau_t under the names tau.visual.*; theta_0 stays the encoder's.",
        "merge --tasks handwriting signs --alpha 0.3 --out merged.safetensors",
    )
    _encoder(verb)
    _mode(verb)
    _tasks(verb)
    _alphas(verb)
    _merging(verb)
    _method(verb)
    verb.add_argument("--out", required=True, metavar="FILE.safetensors")


def _declare_embed(verbs) -> None:
    verb = _verb(
        verbs,
        "embed",
        "copy entries of the local cache into cache/embedded, for the repository (developers)",
        "Computes nothing; it fixes theta_0 and the tau_t of Eq. 1 that every clone starts from.",
        "embed --encoders miniature miniature-random --kinds encoder checkpoint result",
    )
    verb.add_argument("--encoders", nargs="+", default=["miniature", "miniature-random"])
    verb.add_argument(
        "--kinds",
        nargs="+",
        choices=("encoder", "checkpoint", "responses", "result"),
        default=["encoder", "checkpoint", "result"],
    )
    verb.add_argument("--to", metavar="DIR", help="another folder than cache/embedded")
    verb.add_argument("--dry-run", action="store_true", help="say what would be copied")


def _declare_jobs(verbs) -> None:
    verb = _verb(
        verbs,
        "jobs",
        "list, show, cancel, resume, retry or delete background jobs, or print what one said",
        "Any verb takes --background and then is a job, as fine-tuning for tau_t of Eq. 1 is."
        "\nlist; show ID; logs ID; cancel ID: saves its state and leaves; resume ID: goes on from"
        "\nthere; retry ID: from the first step; delete ID [--artifacts].",
        "jobs show 20261122-201500-a1b2c3 --json",
    )
    verb.add_argument(
        "action",
        choices=("list", "show", "cancel", "resume", "retry", "logs", "delete", "run"),
        metavar="{list,show,cancel,resume,retry,logs,delete}",
    )
    verb.add_argument("ids", nargs="*", metavar="ID", help="an id, or its unmistakable beginning")
    verb.add_argument("--force", action="store_true", help="cancel: kill what does not leave")
    verb.add_argument(
        "--artifacts", action="store_true", help="delete: also what it made, after asking"
    )
    verb.add_argument("--yes", action="store_true", help="delete: do not ask")
    verb.add_argument("--lines", type=positive, default=40, metavar="N", help="logs: the last N")
    verb.add_argument("--claim", help=argparse.SUPPRESS)


def _declare_import(verbs) -> None:
    verb = _verb(
        verbs,
        "import",
        "bring a checkpoint of your own into the store as a task vector",
        "tau = theta - theta_0, the task vector of Eq. 1. Known by content: open_clip state dicts,"
        "\nHugging Face CLIP vision models, the tangent-space paper's checkpoints (pickled modules"
        "\nand linear ones), peft LoRA folders, task vectors of ours. No code in a file is run.",
        "import finetuned.safetensors --encoder ViT-B-32-quickgelu:openai --task signs",
    )
    verb.add_argument("path", metavar="PATH", help="a file, or a Hugging Face or peft folder")
    _encoder(verb)
    verb.add_argument("--task", required=True, metavar="T", help="whose task vector it is")
    verb.add_argument(
        "--mode",
        choices=("nonlinear", "linear"),
        help="how it was trained (default: what the file says, else nonlinear)",
    )
    verb.add_argument(
        "--zeroshot", metavar="PATH", help="the pre-trained weights it was fine-tuned from"
    )
    verb.add_argument(
        "--measure", action="store_true", help="also measure it alone, on validation and test"
    )
    _device(verb)


def _declare_export(verbs) -> None:
    verb = _verb(
        verbs,
        "export",
        "write a merged model or a task vector for others to load, and read it back",
        "open_clip: theta_0 + sum_t alpha_t tau_t, Eq. 1, under open_clip's names visual.*"
        "\nhuggingface: the same as a folder with a model card, which transformers loads as"
        "\nCLIPVisionModelWithProjection or CLIPVisionModel."
        "\nvector: sum_t alpha_t tau_t alone, which import reads again.",
        "export --as huggingface --tasks handwriting signs --alpha 0.3 --out merged",
    )
    verb.add_argument(
        "--as",
        dest="format",
        required=True,
        choices=("open_clip", "huggingface", "vector"),
        help="open_clip and vector: a safetensors file; huggingface: a folder",
    )
    _encoder(verb)
    _mode(verb)
    _tasks(verb)
    _alphas(verb)
    _merging(verb)
    verb.add_argument("--out", required=True, metavar="PATH")


def _declare_ntk(verbs) -> None:
    verb = _verb(
        verbs,
        "ntk",
        "measure where the eigenfunctions of the tangent kernel live: local energy on two tasks",
        "k(x, x') = grad f_c(x; theta_0) . grad f_c(x'; theta_0) between n points of the task and"
        "\nthose and n of the control, K = U S V^T, E(x_j) = sum_rho V_j,rho^2: Sec. 6.1, Fig. 6."
        "\nBeside it the same for two halves of the task, and for columns that are no rows.",
        "ntk --encoder miniature --task letters --control objects --points 200 --json",
    )
    _encoder(verb)
    verb.add_argument("--task", required=True, metavar="T", help="its points are the rows")
    verb.add_argument("--control", nargs="+", default=["objects"], metavar="T")
    verb.add_argument("--points", type=positive, default=200, metavar="N", help="of each block")
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
    verb.add_argument("--batch", type=positive, metavar="N", help="images a pass, at most")
    verb.add_argument(
        "--memory", type=positive, metavar="MB", help="beyond the encoder (default: half of free)"
    )
    verb.add_argument("--precision", choices=("auto", "float32", "float64"), default="auto")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of points")
    verb.add_argument("--force", action="store_true", help="measure again what is kept")
    _device(verb)


Declare = Callable[[argparse._SubParsersAction], None]
LISTINGS: tuple[Declare, ...] = (
    _declare_encoders,
    _declare_tasks,
    _declare_checkpoints,
    _declare_jobs,
)
TRAININGS: tuple[Declare, ...] = (_declare_pretrain, _declare_finetune)
MEASURES: tuple[Declare, ...] = (
    _declare_evaluate,
    _declare_addition,
    _declare_negation,
    _declare_disentanglement,
    _declare_ntk,
)
EXPORTS: tuple[Declare, ...] = (_declare_merge, _declare_embed, _declare_import, _declare_export)
