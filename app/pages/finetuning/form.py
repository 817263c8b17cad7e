"""The form of the Fine-tune page: what to launch, what it costs, the button."""

import shlex

import streamlit as st

from app import state, widgets
from app.compute import jobs, launching
from app.compute.background import Work
from app.figures import style
from app.pages.finetuning.choice import COMPARED, choose, field
from app.widgets import choosing
from app.widgets.rerunning import again
from engine.errors import EngineError

COSTS = ("Steps", "Time", "Memory", "Disk")


@st.fragment
def form() -> None:
    """Draw the choice of what to launch, what it costs, and the button."""
    work = launching.ready()
    if not work.finished.is_set():
        st.caption(":material/hourglass_top: Loading the engine: the form is here in a few seconds")
        look_again(work)
        return
    if work.error is not None:
        raise work.error
    left, right = st.columns([3, 2], gap="large")
    with left, widgets.engine_errors():
        seeds, fields = choose_what()
        fields |= choose_how(fields)
    with right:
        show_cost(launching.plan_of(fields, seeds))


# of its own: the form itself is drawn again when something is chosen, and then alone
@st.fragment(run_every=0.5)
def look_again(work: Work) -> None:
    """Run the page again when the engine or the estimate that the form waits for is there."""
    if work.finished.is_set():
        again()


def choose_what() -> tuple[tuple[int, ...], dict]:
    """Draw encoder, tasks, modes and seeds, and return the seeds read and the fields."""
    from app.compute import catalogue

    names, tasks = catalogue.encoder_names(), [*catalogue.task_names()[0], *catalogue.own_tasks()]
    titles = dict(zip(tasks, catalogue.titles(tasks), strict=True))
    first, second = st.columns(2)
    start("encoder", state.choose(None, names))
    start("tasks", [tasks[0]])
    start("modes", ["linear"])
    start("seeds", "0")
    encoder = first.selectbox(
        "Encoder",
        list(dict.fromkeys([*names, *filter(None, [st.session_state[field("encoder")]])])),
        key=field("encoder"),
        accept_new_options=True,
        placeholder="Choose, or type NAME:TAG of open_clip",
        help="In the cache, or typed: NAME:TAG or NAME:FILE of open_clip, as in "
        "ViT-B-32-quickgelu:openai.",
        persist_state="session",
    )
    modes = second.pills(
        "Trained",
        launching.MODES,
        selection_mode="multi",
        format_func=style.MODE_TITLES.get,
        key=field("modes"),
        help="Non-linear: in weight space. Linear: in the tangent space at the pre-trained model.",
        persist_state="session",
    )
    chosen = st.multiselect(
        "Tasks",
        list(dict.fromkeys([*tasks, *st.session_state[field("tasks")]])),
        key=field("tasks"),
        format_func=lambda name: titles.get(name, name),
        accept_new_options=True,
        placeholder="Choose, or type the path of a folder of your own",
        help="A folder with train/<class>/*.png and test/<class>/*.png, <class>/*.png, or "
        "train*.parquet and test*.parquet with the columns image and label.",
        persist_state="session",
    )
    text = st.text_input(
        "Seeds",
        key=field("seeds"),
        help="Of data order and augmentation; one job each: 0, 2, 5 or 0-3.",
        persist_state="session",
    )
    return state.seeds_of(text), {"encoder": encoder, "tasks": chosen, "modes": modes}


def choose_how(fields: dict) -> dict:
    """Draw the recipe, the device and the back end, and return these fields."""
    usual = launching.defaults(
        fields["encoder"] or "", tuple(fields["modes"]), st.session_state.get(field("steps"))
    )
    there = launching.choices()

    def number(name: str, label: str, about: str, **settings):
        return st.number_input(
            label,
            value=None,
            placeholder=usual.get(name, "all"),
            key=field(name),
            help=about,
            persist_state="session",
            **settings,
        )

    found = {}
    columns = st.columns(5, gap="small")
    with columns[0]:
        found["steps"] = number("steps", "Steps", "Updates of the task vector.", min_value=1)
    with columns[1]:
        found["batch"] = number("batch", "Batch (images)", "Images a step.", min_value=1)
    with columns[2]:
        found["rate"] = number(
            "rate", "Peak rate", "Of AdamW; warm-up, then cosine to 0.", format="%g", step=1e-5
        )
    with columns[3]:
        found["warmup"] = number("warmup", "Warm-up (steps)", "Linear from 0.", min_value=0)
    with columns[4]:
        found["weight_decay"] = number(
            "weight_decay", "Weight decay", "Decoupled, of the weights.", format="%g", step=0.01
        )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        for name, label in (("device", "Device"), ("on", "Runs on")):
            start(name, there[name][0])
            state_of = st.session_state[field(name)]
            found[name] = st.segmented_control(
                label,
                list(dict.fromkeys([*there[name], state_of])),
                required=True,
                key=field(name),
                format_func={"local": "this machine", "slurm": "Slurm"}.get
                if name == "on"
                else str,
                persist_state="session",
            )
        with st.popover("More", icon=":material/tune:", key="finetune_more"):
            for name in launching.WORDS:
                start(name, launching.DEFAULT)
                found[name] = st.selectbox(
                    name.capitalize(),
                    there[name],
                    key=field(name),
                    format_func=lambda word, name=name: (
                        f"default ({usual[name]})" if word == launching.DEFAULT else word
                    ),
                    persist_state="session",
                )
            found["accumulate"] = number(
                "accumulate", "Pieces a batch", "Saves memory; changes rounding.", min_value=1
            )
            found["checkpointing"] = st.toggle(
                "Checkpointing",
                key=field("checkpointing"),
                help="Computes each block again on the way back instead of keeping its inside: "
                "less memory, more time. For transformers.",
                persist_state="session",
            )
            found["checkpoint_every"] = number(
                "checkpoint_every", "Steps between working states", "At most lost.", min_value=1
            )
            found["limit"] = number(
                "limit", "Train on the first (images)", "Empty: on all.", min_value=1
            )
            start("gpus", 1)
            found["gpus"] = st.number_input(
                "GPUs a job", min_value=1, key=field("gpus"), persist_state="session"
            )
    return found | {"kept": keep_words()}


def keep_words() -> list[str]:
    """Show the words of a copied job that no field stands for, with a way to leave them out."""
    kept = st.session_state.get(field("kept")) or []
    if kept:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(f"Also, as the job this was copied from: `{shlex.join(kept)}`")
            st.button(
                "Leave out",
                key="finetune_kept_out",
                type="tertiary",
                icon=":material/close:",
                on_click=leave_out,
            )
    return kept


def leave_out() -> None:
    """Forget the words of a copied job that no field stands for."""
    st.session_state[field("kept")] = []


def start(name: str, value) -> None:
    """Give a field its first value."""
    st.session_state.setdefault(field(name), value)


def show_cost(plan: launching.Plan) -> None:
    """Draw what a plan will take, why it cannot be launched, and the button."""
    with st.container(border=True, key="finetune_cost"):
        missing = lacking(plan)
        found = None
        if missing:
            st.info(missing, icon=":material/info:")
        else:
            found = estimated(plan)
        many = "s" if plan.count > 1 else ""
        pressed = st.button(
            f"Launch {plan.count} job{many}" if plan.count else "Launch",
            type="primary",
            icon=":material/rocket_launch:",
            key="finetune_launch",
            disabled=found is None or bool(found.refusals),
            width="stretch",
        )
    if pressed:
        with widgets.engine_errors():
            launched = launching.launch(plan)
        choose([job.id for job in launched][:COMPARED])
        st.toast(f"{len(launched)} job{many} launched", icon=":material/rocket_launch:")
        st.rerun()


def lacking(plan: launching.Plan) -> str | None:
    """Say what is still to be chosen."""
    if not plan.encoder:
        return "Choose an encoder. The miniature is made with `python -m engine pretrain`."
    if not plan.tasks:
        return "Choose at least one task."
    if not plan.modes:
        return "Choose at least one way of training."
    if not plan.seeds:
        return "Give seeds as whole numbers, as in 0, 2, 5 or 0-3; at most 100."
    return None


def estimated(plan: launching.Plan) -> launching.Cost | None:
    """Draw what a plan costs; None while that is not known, or where it cannot be carried out."""
    newest = max((job.ended or 0.0 for job in jobs.queue().list()), default=0.0)
    work = launching.cost(plan, choosing.visitor(), newest)
    work.wait(0.1)
    if not work.finished.is_set():
        numbers(("Jobs", f"{plan.count:,}"), *((name, "…") for name in COSTS))
        st.caption(":material/hourglass_top: Estimating …")
        look_again(work)
        return None
    if work.error is not None:
        if not isinstance(work.error, EngineError):
            raise work.error
        widgets.show_error(work.error)
        return None
    cost = work.result
    numbers(
        ("Jobs", f"{cost.jobs:,}"),
        ("Steps", f"{cost.steps:,}"),
        ("Time", jobs.seconds(cost.seconds)),
        ("Memory", widgets.megabytes(cost.memory) if cost.memory is not None else "–"),
        ("Disk", widgets.megabytes(cost.disk) if cost.disk is not None else "–"),
    )
    if cost.refusals:
        st.error(" ".join(map(jobs.sentence, cost.refusals)), icon=":material/block:")
    else:
        st.caption(f"{jobs.sentence(cost.measured)} Memory of one job; the rest of all together.")
    return cost


def numbers(*pairs: tuple[str, str]) -> None:
    """Draw a few numbers with their names side by side; they wrap on a narrow screen."""
    with st.container(horizontal=True, gap="medium"):
        for name, value in pairs:
            st.metric(name, value, width="content")
