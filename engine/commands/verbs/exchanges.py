"""The verbs that bring files in and take them away."""

from engine.commands.verbs import options


def _merge(verbs) -> None:
    verb = options.declare(
        verbs,
        "merge",
        "write the merged weights as safetensors, for open_clip",
        "nonlinear: theta_0 + sum_t alpha_t tau_t, Eq. 1, under open_clip's names visual.*"
        "\nposthoc and linear: f_lin of Eq. 3 needs theta_0 and tau apart, so what is written is"
        "\ntau = sum_t alpha_t tau_t under the names tau.visual.*; theta_0 stays the encoder's.",
        "merge --tasks handwriting signs --alpha 0.3 --out merged.safetensors",
    )
    options.encoder(verb)
    options.mode(verb)
    options.tasks(verb)
    options.alphas(verb)
    options.merging(verb)
    options.method(verb)
    verb.add_argument("--out", required=True, metavar="FILE.safetensors")


def _embed(verbs) -> None:
    verb = options.declare(
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


def _import(verbs) -> None:
    verb = options.declare(
        verbs,
        "import",
        "bring a checkpoint of your own into the store as a task vector",
        "tau = theta - theta_0, the task vector of Eq. 1. Known by content: open_clip state dicts,"
        "\nHugging Face CLIP vision models, the tangent-space paper's checkpoints (pickled modules"
        "\nand linear ones), peft LoRA folders, task vectors of ours. No code in a file is run.",
        "import finetuned.safetensors --encoder ViT-B-32-quickgelu:openai --task signs",
    )
    verb.add_argument("path", metavar="PATH", help="a file, or a Hugging Face or peft folder")
    options.encoder(verb)
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
    verb.add_argument("--dry-run", action="store_true", help="say what it is, and write nothing")
    options.device(verb)


def _export(verbs) -> None:
    verb = options.declare(
        verbs,
        "export",
        "write a merged model or a task vector for others to load, and read it back",
        "open_clip: theta_0 + sum_t alpha_t tau_t, Eq. 1, under open_clip's names visual.*"
        "\nhuggingface: the same as a folder with a model card, which transformers loads as"
        "\nCLIPVisionModelWithProjection or CLIPVisionModel."
        "\nvector: sum_t alpha_t tau_t alone, which import reads again."
        "\nWith --method, alpha times what it makes of the task vectors stands for the sum.",
        "export --as huggingface --tasks handwriting signs --alpha 0.3 --out merged",
    )
    verb.add_argument(
        "--as",
        dest="format",
        required=True,
        choices=("open_clip", "huggingface", "vector"),
        help="open_clip and vector: a safetensors file; huggingface: a folder",
    )
    options.encoder(verb)
    options.mode(verb)
    options.tasks(verb)
    options.alphas(verb)
    options.merging(verb)
    options.method(verb)
    verb.add_argument("--out", required=True, metavar="PATH")


VERBS = (_merge, _embed, _import, _export)
