#!/bin/sh
# get_data.sh - fetches public data sets: downloads with curl or wget, resumes, compares checksums, unpacks. A file has
# its final name only when it is complete. It can be repeated; finished steps are skipped.
set -eu

usage() {
  as_typed <<'USAGE'
usage: sh scripts/get_data.sh [options] NAME...
Fetches data sets into data/NAME, for atomo.data.open and train_cifar.lua --data.
NAME: cifar10, cifar100, mnist, fashion-mnist, svhn
  --to FOLDER     put them into FOLDER/NAME (default: data)
  --from BASE     fetch from BASE, an address (https://, file://) or a folder with the same files, instead of the
                  public address
  --no-verify     do not compare checksums, for files that are not the original ones, such as subsets
  --help          show this help
examples:
  sh scripts/get_data.sh cifar10
  sh scripts/get_data.sh --to /scratch/data mnist fashion-mnist
  sh scripts/get_data.sh --from /shared/downloads svhn
Without a network it prints what to fetch by hand and where to put it; run it again then.
USAGE
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

# base of NAME: the folder of its public address
base_of() {
  case $1 in
  cifar10 | cifar100) echo https://www.cs.toronto.edu/~kriz ;;
  mnist) echo https://ossci-datasets.s3.amazonaws.com/mnist ;;
  fashion-mnist) echo http://fashion-mnist.s3-website.eu-central-1.amazonaws.com ;;
  svhn) echo http://ufldl.stanford.edu/housenumbers ;;
  *) return 1 ;;
  esac
}

# Prints the files of NAME, one a line, with their MD5 sums: those of torchvision's sources.
files_of() {
  case $1 in
  cifar10) echo cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530 ;;
  cifar100) echo cifar-100-binary.tar.gz 03b5dce01913d631647c71ecec9e9cb8 ;;
  mnist)
    echo train-images-idx3-ubyte.gz f68b3c2dcbeaaa9fbdd348bbdeb94873
    echo train-labels-idx1-ubyte.gz d53e105ee54ea40749a09fcbcd1e9432
    echo t10k-images-idx3-ubyte.gz 9fb629c4189551a2d022fa330f9573f3
    echo t10k-labels-idx1-ubyte.gz ec29112dd5afa0611ce80d1b7f02629c
    ;;
  fashion-mnist)
    echo train-images-idx3-ubyte.gz 8d4fb7e6c68d591d4c3dfef9ec88bf0d
    echo train-labels-idx1-ubyte.gz 25c81989df183df01b3e8a0aad5dffbe
    echo t10k-images-idx3-ubyte.gz bef4ecab320f06d8554ea6380940ec79
    echo t10k-labels-idx1-ubyte.gz bb300cfdad3c16e7a12a480ee83cd310
    ;;
  svhn)
    echo train_32x32.mat e26dedcc434d2e4c54c9b2d4a06d8373
    echo test_32x32.mat eb5a983be6a315427106f1b164d9cef3
    ;;
  esac
}

# The folder that an archive unpacks to; nothing for plain files.
folder_in() {
  case $1 in
  cifar-10-binary.tar.gz) echo cifar-10-batches-bin ;;
  cifar-100-binary.tar.gz) echo cifar-100-binary ;;
  esac
}

md5_of() {
  if have md5sum; then md5sum "$1" | cut -d' ' -f1
  elif have md5; then md5 -q "$1"
  else openssl md5 "$1" | sed 's/.* //'
  fi
}

bytes_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; } # FILE

# Is the file the original one? With --no-verify every file that is there is.
verified() { # FILE MD5
  [ -f "$1" ] || return 1
  [ -z "$verify" ] || [ "$(md5_of "$1")" = "$2" ]
}

# Downloads URL, or copies it if it is a path, to FILE. A download resumes where FILE ends.
download() { # URL FILE
  case $1 in /*) cp "$1" "$2"; return ;; esac
  if have curl; then curl -fL --retry 3 --connect-timeout 20 -C - -o "$2" "$1"
  else wget -c -T 20 -t 3 -O "$2" "$1"
  fi
}

by_hand() { # URL MD5 FOLDER
  {
    echo "get_data.sh: cannot fetch $1"
    echo "Fetch it where there is a network:"
    echo "  $1"
    echo "  (MD5 $2)"
    echo "put it into"
    echo "  $3/"
    echo "and run this again. A folder that has the files, or a mirror, can be given with --from."
  } >&2
  exit 1
}

# Makes FOLDER/FILE complete and verified.
fetch() { # URL FILE MD5 FOLDER
  file=$4/$2
  if verified "$file" "$3"; then say "$file is there"; return; fi
  [ ! -f "$file" ] || die "$file has the MD5 sum $(md5_of "$file"), expected $3: remove it, or use --no-verify"
  if [ -z "$verify" ] || ! verified "$file.part" "$3"; then
    say "fetching $1"
    had=$(bytes_of "$file.part")
    until download "$1" "$file.part"; do # one that was cut off continues where it ended, as long as it gets further
      has=$(bytes_of "$file.part")
      [ "$has" -gt "$had" ] || by_hand "$1" "$3" "$4"
      had=$has
      say "$1 was cut off after $has bytes: going on"
    done
  fi
  if ! verified "$file.part" "$3"; then
    sum=$(md5_of "$file.part")
    rm "$file.part"
    die "$1 has the MD5 sum $sum, expected $3: removed; run this again"
  fi
  mv "$file.part" "$file"
}

# Unpacks FOLDER/FILE, so that its folder is complete or absent, and removes FILE.
unpack() { # FILE INNER FOLDER
  say "unpacking $3/$1"
  rm -rf "$3/.unpacking"
  mkdir "$3/.unpacking"
  tar -xzf "$3/$1" -C "$3/.unpacking" || die "$3/$1 cannot be unpacked: remove it and run this again"
  [ -d "$3/.unpacking/$2" ] || die "$3/$1 has no folder $2"
  mv "$3/.unpacking/$2" "$3/$2"
  rm -r "$3/.unpacking"
  rm "${3:?}/$1"
}

get() { # NAME
  folder=$to/$1 base=${from:-$(base_of "$1")}
  mkdir -p "$folder" || die "cannot make the folder $folder"
  files_of "$1" | while read -r name md5; do
    inner=$(folder_in "$name")
    if [ -n "$inner" ] && [ -d "$folder/$inner" ]; then say "$folder/$inner is there"; continue; fi
    fetch "$base/$name" "$name" "$md5" "$folder" </dev/null
    [ -z "$inner" ] || unpack "$name" "$inner" "$folder"
  done
  say "$1 is complete: --data $folder"
}

to=data from='' verify=1 names=''
while [ $# -gt 0 ]; do
  case $1 in
  --to | --from)
    [ $# -ge 2 ] || die "$1 wants a value, see --help"
    if [ "$1" = --to ]; then to=$2; else from=$2; fi
    shift
    ;;
  --no-verify) verify= ;;
  -h | --help) usage; exit 0 ;;
  -*) usage >&2; die "unknown option '$1'" ;;
  *)
    base_of "$1" >/dev/null || die "unknown data set '$1': cifar10, cifar100, mnist, fashion-mnist or svhn"
    names="$names $1"
    ;;
  esac
  shift
done
[ -n "$names" ] || { usage >&2; die "no data set named"; }
have curl || have wget || [ -n "$from" ] || die "needs curl or wget (apt install curl)"
case $from in
'' | *://*) ;;
*) from=$(CDPATH='' cd -- "$from" && pwd) || die "there is no folder $from" ;;
esac
for each in $names; do get "$each"; done
