# docker build -t hsemotion-space . && docker run --read-only -p 7860:7860 -v hsemotion:/var/lib/hsemotion hsemotion-space
FROM python:3.12-slim
RUN useradd --uid 1000 --no-create-home user && install -d -o user -g user /var/lib/hsemotion
WORKDIR /app
COPY deploy/requirements.txt deploy/requirements.txt
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r deploy/requirements.txt
# The application belongs to root, so the server cannot change it; everything that it writes lies in /var/lib/hsemotion.
COPY app.py ./
COPY hsemotion_space hsemotion_space
COPY checkpoints checkpoints
COPY examples examples
ENV PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/hsemotion \
    TMPDIR=/var/lib/hsemotion \
    HSEMOTION_HOST=0.0.0.0 \
    HSEMOTION_CACHE=/var/lib/hsemotion/cache \
    HSEMOTION_FEEDBACK_DATA=/var/lib/hsemotion/feedback
USER user
VOLUME /var/lib/hsemotion
EXPOSE 7860
HEALTHCHECK --start-period=120s --interval=30s --timeout=10s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/readyz', timeout=8)"]
CMD ["python", "app.py"]
