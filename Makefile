# `make demo` shows it, `make test` is what every change must pass.
.PHONY: demo test lint bench tools examples vectors
CARGO := cargo
demo test: export TOLLGATE_NATS_SERVER = $(shell .ci/nats-server)

demo:
	$(CARGO) run -q --locked -p tollgate -- demo

test: tools lint
	TOLLGATE_READERS="$$(.ci/readers || true)" TOLLGATE_MOTO="$$(.ci/moto || true)" TOLLGATE_PUBLISHERS="$$(.ci/publishers || true)" \
	TOLLGATE_PUBLISHERS_NODE="$$(.ci/publishers-node || true)" TOLLGATE_SCHEMATHESIS="$$(.ci/schemathesis || true)" \
	    $(CARGO) test --locked --workspace
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --workspace
	$(MAKE) examples

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

examples:
	@set -e; for file in examples/*.rs; do \
	    [ -e "$$file" ] || continue; \
	    echo "example $$(basename "$$file" .rs)"; \
	    $(CARGO) run -q --locked -p tollgate --example "$$(basename "$$file" .rs)"; \
	done

bench:
	$(CARGO) bench --locked --workspace

# Runs the cases of a folder, such as `make vectors DIR=engine/tests/vectors/cases`.
vectors:
	@test -n "$(DIR)" || { echo "name a folder with aggregation.jsonl and pricing.jsonl: make vectors DIR=..." >&2; exit 2; }
	TOLLGATE_VECTORS="$(abspath $(DIR))" $(CARGO) test -q --locked --workspace --test vectors

tools:
	@.ci/nats-server >/dev/null
	@.ci/nats-server-2.9 >/dev/null || echo "the test with the oldest server is skipped"
	@.ci/readers >/dev/null || echo "no outside readers here: the tests that use them are skipped"
	@.ci/schemathesis >/dev/null || echo "no schemathesis here: the test that uses it is skipped"
	@.ci/moto >/dev/null || echo "no S3 server here: the tests that use it are skipped"
