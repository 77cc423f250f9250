"""The world in virtual time around the production decide(). Takes parsed values, reads no files, knows no clock.

world       what a scenario says: sites, links, tenants, faults, prices
scenario    a parsed TOML document -> World
service     a site at work: slots, queue, prefix cache
costs       requests + assignments -> every cost and latency; what a judge would compute
bills       what flows over the links in five-minute bins: 95th-percentile bills, caps
market      which prices are public at a moment, as price books
staging     the world in the terms of routing: tables, backends, links
outages     faults, and what the router knows of them
replay      the requests in order of time through decide()
"""
