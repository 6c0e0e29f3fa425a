package main

import (
	"fmt"
	"log"
	"net"

	"github.com/miekg/dns"
)

// resolve is a DNS server that gives every name one IPv4 address.
func resolve(address string) error {
	ip := net.ParseIP(address).To4()
	if ip == nil {
		return fmt.Errorf("%q is no IPv4 address", address)
	}
	server := &dns.Server{Addr: ":53", Net: "udp", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		answer := new(dns.Msg).SetReply(query)
		for _, asked := range query.Question {
			log.Printf("%s from %s", asked.Name, w.RemoteAddr())
			if asked.Qtype == dns.TypeA {
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: ip,
				})
			}
		}
		if err := w.WriteMsg(answer); err != nil {
			log.Print(err)
		}
	})}
	return server.ListenAndServe()
}
