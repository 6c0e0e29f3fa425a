// Package load sends the webhook's server more at once than any API server does,
// and reports the times of the answers and the server's memory: 2,000 reviews in
// flight over HTTPS, none of which may fail; and reviews beside 1,000 connections
// that withhold the last byte of theirs.
package load
