#!/usr/bin/env bash
# A real S3 service for the integration tests: one Ceph monitor, one OSD in memory and the RADOS gateway, all on loopback.
#
#   ceph.sh start DIR PORT   make DIR anew; S3 answers at http://127.0.0.1:PORT when this returns. The daemons
#                            themselves take ports from PORT+1 to PORT+50. Access key testaccess, secret testsecret.
#   ceph.sh stop DIR         end what was started in DIR
#
# Debian packages: ceph-mon ceph-osd radosgw
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }

wait_for() { # what, then the command that succeeds once it is there
  local what=$1; shift
  for _ in $(seq 300); do
    if "$@" >> "$dir/log/wait" 2>&1; then return; fi
    sleep 0.2
  done
  echo "ceph.sh: $what did not come up within a minute; see $dir/log" >&2
  stop
  exit 1
}

run_daemon() { # name, then its command in the foreground
  local name=$1; shift
  setsid "$@" < /dev/null > "$dir/log/$name" 2>&1 &
  echo $! > "$dir/pid/$name"
}

stop() {
  local name
  for name in radosgw osd mon; do
    if [[ -f $dir/pid/$name ]]; then
      kill -KILL "$(< "$dir/pid/$name")" 2> /dev/null || true # nobody needs the data again
      rm "$dir/pid/$name"
    fi
  done
}

start() {
  local name osd
  rm -rf "$dir"
  mkdir -p "$dir"/{log,pid,mon,osd}
  cat > "$dir/ceph.conf" << EOF
[global]
fsid = $(< /proc/sys/kernel/random/uuid)
keyring = $dir/keyring
auth_allow_insecure_global_id_reclaim = false
mon_host = v2:127.0.0.1:$((port + 1))/0
public_network = 127.0.0.0/8
ms_bind_port_min = $((port + 2))
ms_bind_port_max = $((port + 50))
run_dir = $dir/pid
admin_socket =
log_file = $dir/log/\$name.log
mon_data = $dir/mon
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_data = $dir/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_class_default_list = *
osd_class_load_list = *
# what is deleted is gone within a minute, not after hours: it all lies in memory
rgw_gc_obj_min_wait = 10
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
rgw_frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
EOF
  export CEPH_CONF=$dir/ceph.conf
  # one keyring for all; the gateway does not start without keys, even where the daemons ask for none
  ceph-authtool "$dir/keyring" --create-keyring --gen-key --name mon. --cap mon 'allow *' > /dev/null
  for name in client.admin osd.0; do
    ceph-authtool "$dir/keyring" --gen-key --name $name --cap mon 'allow *' --cap osd 'allow *' > /dev/null
  done
  monmaptool --create --fsid "$(ceph-conf --lookup fsid)" --addv a "[v2:127.0.0.1:$((port + 1))]" "$dir/monmap" > /dev/null
  ceph-mon -i a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring" > "$dir/log/mkfs" 2>&1
  run_daemon mon ceph-mon -i a -f
  wait_for "the monitor" timeout 5 ceph status
  osd=$(< /proc/sys/kernel/random/uuid)
  ceph osd new "$osd" > /dev/null 2>> "$dir/log/mkfs"
  ceph-osd -i 0 --mkfs --osd-uuid "$osd" >> "$dir/log/mkfs" 2>&1
  run_daemon osd ceph-osd -i 0 -f
  wait_for "the OSD" bash -c 'timeout 5 ceph osd stat | grep -q "1 up"'
  radosgw-admin user create --uid=test --display-name=test --access-key=testaccess --secret-key=testsecret \
    > "$dir/log/user" 2>&1
  run_daemon radosgw radosgw -n client.admin -f
  wait_for "the gateway" bash -c "exec 3<> /dev/tcp/127.0.0.1/$port"
}

[[ $# -ge 2 ]] || usage
dir=$(realpath -m "$2")
case $1:$# in
  start:3) port=$3; start ;;
  stop:2) stop ;;
  *) usage ;;
esac
