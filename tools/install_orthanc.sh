#!/usr/bin/env bash
# Install Orthanc with its DICOMweb plugin, a PACS that the tests talk to, on Debian and Ubuntu as root.
# It never fails: without Orthanc its tests are skipped, and that is printed.
set -uo pipefail

skipped() {
    echo "Orthanc was not installed ($1): the tests with a real PACS are skipped."
    exit 0
}

[ -x /usr/sbin/Orthanc ] && [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] && exit 0
[ "$(id -u)" = 0 ] || skipped "only root may"
command -v apt-get >/dev/null || skipped "there is no apt-get"
# A running system would start it as a service that listens to everybody.
[ -d /run/systemd/system ] && skipped "it would run as a service here; install orthanc and orthanc-dicomweb yourself"
log=$(mktemp)
apt-get -qq update >"$log" 2>&1
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install -y --no-install-recommends orthanc orthanc-dicomweb \
    >>"$log" 2>&1 || skipped "apt-get failed: $(tail -n 1 "$log")"
echo "Orthanc is installed for the tests."
