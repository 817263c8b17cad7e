"""Arrays in, Plotly figure out: pure functions; colours that everyone tells apart."""
