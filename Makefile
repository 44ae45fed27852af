# For people at work on knockd-rs. The Debian package is built by debian/rules, without this file.
# Needs Debian 12 or later, root and a Rust toolchain; what else is missing is installed.

SUITE ?= bookworm

help: ## what there is
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

build: ## the program, in target/release
	tests/install-deps build
	cargo build --release --locked

lib: ## the client for programs in C, target/release/libknockd_rs.so; its header is src/capi/knockd_rs.h
	@command -v cc >/dev/null || { echo "make lib: no C compiler; install Debian's package gcc" >&2; exit 1; }
	cargo rustc --release --locked --lib --crate-type cdylib --no-default-features --features client,capi

demo: ## the main job on two throw-away machines, told step by step, in 20 seconds
	tests/install-deps demo
	cargo build --release --locked
	tests/demo

test: ## everything: format, lints, all tests, both halves of the program, manual, licences
	tests/install-deps test
	tests/all

model: ## two models of the protocol, searched by Spin and, where it is installed, by Verifpal
	tests/install-deps model
	tests/model/run replay
	@command -v verifpal >/dev/null || echo "make model: without Verifpal; the head of tests/model/run says how to get it"
	@! command -v verifpal >/dev/null || tests/model/run stolen

fuzz: ## every parser with what libFuzzer thinks of, for SECONDS=10 each (ASAN=1: every byte beside a buffer is watched)
	tests/install-deps test
	tests/fuzz/run $(if $(ASAN),--asan) --seconds $(or $(SECONDS),10) --jobs 2

bench: ## what knocking costs on this machine, beside fwknopd and knockd (QUICK=1, ONLY=latency|junk|filter|idle|growth|loss)
	tests/install-deps bench
	$(if $(QUICK)$(ONLY),,tests/bench)
	tests/evidence $(if $(QUICK),--quick) $(ONLY)

soak: ## an hour of junk and real knocks; fails where anything grows or is unanswered (MINUTES=60)
	tests/install-deps bench
	tests/evidence soak $(or $(MINUTES),60)

deb: ## the Debian package, in the directory above
	tests/install-deps deb
	dpkg-buildpackage -b -uc -us $(shell command -v rustup >/dev/null && echo -Ppkg.knockd-rs.rustup)

package-test: ## builds the package and plays its life in a throw-away Debian (SUITE=trixie)
	tests/package/run $(SUITE)

vm-test: ## the same with a reboot, in virtual machines with Debian's kernels: SUITES="bookworm trixie", some minutes each
	tests/package/vm $(or $(SUITES),bookworm trixie)

autopkgtest: ## the package's tests by Debian's own tool, in a throw-away Debian (SUITE=trixie)
	tests/package/autopkgtest $(SUITE)

reproducible: ## builds the package twice, each time in other surroundings, and compares the bytes
	tests/package/reproducible

repo: deb ## a signed apt repository of the package, in REPO=../knockd-rs-repo (URL=https://...), and how to install from it
	tests/install-deps repo
	@tests/package/repo $(if $(URL),--url $(URL)) $(or $(REPO),../knockd-rs-repo) \
		../knockd-rs_$$(dpkg-parsechangelog -S Version)_$$(dpkg --print-architecture).deb

install-deps: ## only installs what the targets above need
	tests/install-deps build demo test bench deb

clean: ## removes what was built
	cargo clean

.PHONY: help build lib demo test model fuzz bench soak deb package-test vm-test autopkgtest reproducible repo install-deps clean
