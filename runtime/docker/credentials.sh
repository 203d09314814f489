#!/bin/sh
# Makes the passwords of this stack on its first start, and writes them where each container can read its own:
#
#   passwords.conf, routes.conf  for the brokers
#   replica.password             for replicas, which can read nothing else here
#   client.env                   for clients on the host
#
# A password that is there stays. For others, remove the volume while the stack is down. Root's rights are not enough here
# to read what others own, so each password is kept in a file of root's too.
set -eu
umask 077
cd "${CREDENTIALS:-/credentials}"

password() {
  if [ ! -s "$1.password" ]; then
    LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32 >"$1.part"
    [ "$(wc -c <"$1.part")" -eq 32 ]
    mv "$1.part" "$1.password"
    echo "made a password for $1" >&2
  fi
  cat "$1.password"
}

# Whole or not at all, for whoever reads it meanwhile.
write() {
  cat >"$1.part"
  mv "$1.part" "$1"
}

halm=$(password halm)
client=$(password client)
route=$(password route)

cp halm.password replica.part
chown "$HALM_UID" replica.part
mv replica.part replica.password

write passwords.conf <<EOF
HALM_PASSWORD: "$halm"
CLIENT_PASSWORD: "$client"
EOF
write routes.conf <<EOF
ROUTE_PASSWORD: "$route"
ROUTES: [
  "nats-route://route:$route@nats-1:6222"
  "nats-route://route:$route@nats-2:6222"
  "nats-route://route:$route@nats-3:6222"
]
EOF
write client.env <<EOF
NATS_URL=$CLIENT_URL
NATS_USER=client
NATS_PASSWORD=$client
EOF
