// Package load asks the webhook's server more at once than any API server
// does: 2,000 reviews in flight over HTTPS, none of which may fail; and reviews
// beside 1,000 connections that hold the last byte of theirs back. The tests
// report the times of the answers and the memory that the server took.
package load
