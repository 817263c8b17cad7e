"""Arrays in, Plotly figure out: pure functions, colours that every kind of colour vision tells apart."""
