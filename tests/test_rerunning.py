"""A page that is out of date is drawn to its end before it is run once more."""

from streamlit.testing.v1 import AppTest


def outdated_page():
    import streamlit as st

    from app.widgets.rerunning import again, whole_run

    begun = st.session_state.setdefault("begun", [])
    ended = st.session_state.setdefault("ended", [])
    begun.append(len(begun))
    with whole_run():
        if len(begun) == 1:
            again()
            again()  # asked twice, run once
        st.write(f"drawn to its end in run {len(begun)}")
        ended.append(begun[-1])


def stopped_page():
    import streamlit as st

    from app.widgets.rerunning import again, whole_run

    st.session_state.setdefault("runs", []).append(1)
    if len(st.session_state.runs) == 1:
        with whole_run():
            again()
            st.stop()
    st.write("outside")
    if len(st.session_state.runs) == 2:
        again()  # no whole run is under way: at once
    st.write("after it")


def test_the_run_under_way_ends_before_the_next():
    page = AppTest.from_function(outdated_page).run()
    assert not page.exception
    assert page.session_state.begun == page.session_state.ended == [0, 1]
    assert [item.value for item in page.markdown] == ["drawn to its end in run 2"]


def test_a_stopped_page_leaves_nothing_behind():
    page = AppTest.from_function(stopped_page).run()
    assert len(page.session_state.runs) == 1  # whatever stopped it looks again by itself
    page.run()
    assert len(page.session_state.runs) == 3
    assert [item.value for item in page.markdown] == ["outside", "after it"]
