# The router, for every role; compose.yaml runs it. Built in two steps so that pip and its leftovers stay behind.
FROM python:3.11.13-slim-bookworm AS build
RUN python -m venv /venv
COPY requirements.txt /tmp/
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt

FROM python:3.11.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /app router
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
COPY manage.py ./
COPY core/ core/
COPY accounts/ accounts/
COPY marketdata/ marketdata/
COPY trading/ trading/
COPY gateway/ gateway/
COPY router_project/ router_project/
RUN python -m compileall -q . && mkdir data && chown router data
USER router
EXPOSE 8000
STOPSIGNAL SIGTERM
# Every role answers it: a web process on PORT, the others on STATE_PORT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["run_router"]
