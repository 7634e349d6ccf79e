# docker build -t hsemotion-space . && docker run -p 7860:7860 hsemotion-space
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 user && install -d -o user /app
USER user
WORKDIR /app
COPY --chown=user . .
RUN make install
ENV GRADIO_SERVER_NAME=0.0.0.0
EXPOSE 7860
CMD ["make", "demo"]
