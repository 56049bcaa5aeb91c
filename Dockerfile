# The operator's image. Nothing is downloaded but Python packages, in the versions of requirements.txt.
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.txt ./
# Constraints are versions alone: they take neither hashes nor extras.
RUN sed -e '/^ *--hash/d' -e 's/ *\\$//' -e 's/\[[a-z,]*\]//' requirements.txt > constraints.txt \
    && pip install --no-cache-dir -c constraints.txt hatchling setuptools
COPY producer_sdk producer_sdk
COPY operator operator
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps -w /wheels ./producer_sdk ./operator \
    && python -m venv /opt/hotkey \
    && /opt/hotkey/bin/pip install --no-cache-dir -c constraints.txt /wheels/*.whl

FROM python:3.11-slim
COPY --from=build /opt/hotkey /opt/hotkey
ENV PATH=/opt/hotkey/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["hotkey-operator"]
CMD ["run"]
