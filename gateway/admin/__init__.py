"""The admin listener: health, metrics, status and the operator's page. It shows and asks; it decides nothing.

server     URL -> handler, and the listening
guard      who may ask: host, token, origin; and the headers every answer carries
plane      what is needed of the control plane
fleet      the workers' answers, merged
metrics    the scrape            status    JSON for `top` and the page
page       the page: `views_*` make its sections from the above, `drawing` and `world` its pictures
"""
