"""The dashboard: a Streamlit page on top of the Python client, and of nothing else of the router."""
