// Package picture opens the page of `shunt trace -o html` in a real browser, and
// holds it to the command line. Its module is its own: what drives the browser is no
// dependency of Shunt.
//
// It needs CHROMIUM, a headless Chromium, and AXE, the script of axe-core;
// hack/suites.sh picture sets both, and builds the engine of the page first.
package picture
