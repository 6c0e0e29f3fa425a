// Package exchange is what a page of `shunt trace -o html` and the engine in it
// exchange, as JSON: the pods that the page holds, a question about one of them, and
// the answer. It is compiled into shunt, which writes the pods, and into the engine,
// which reads them and walks.
package exchange
