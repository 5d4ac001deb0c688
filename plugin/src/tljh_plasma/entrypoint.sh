#!/bin/sh
# Entrypoint of every user server. It runs as the person, with no privileges, in their own container.
#
# On the first start of an image it copies the image's files (/home/jovyan) into ~/$PLASMA_DIR. Every later start
# finds the marker and does nothing, however many files there are. Whatever goes wrong here is said on stderr (the
# container's log), and the server starts all the same, in the home if need be.
#
# Set by the hub: HOME, PLASMA_ENVIRONMENT (display name), PLASMA_DIR (directory name), PLASMA_IMAGE_ID,
# PLASMA_RUNTIME_DIR (a small directory in memory), PLASMA_UMASK, PLASMA_SAFE_MODE (1: nothing that the home brings may
# keep the server from starting) and PLASMA_TZ (the time zone TZ without a name, for images that know no names).
#
# What is said here is also told to the person in JupyterLab.

# The image's PATH may begin with directories that the person writes to: it is for the server, not for this script.
image_path=$PATH
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022

source=/home/jovyan
target=$HOME/$PLASMA_DIR
state=$target/.plasma
marker=$state/copied
staging=$state/new

say() {
    printf 'plasma: %s\n' "$*" >&2
}

# Say what went wrong, in words for the person when the disk is full.
complain() { # complain ERROR
    case $1 in
    *"No space left"* | *"quota exceeded"*)
        say "The disk is full or the disk quota is used up, so the files of $PLASMA_ENVIRONMENT could not be copied." \
            "Delete files that are no longer needed, then stop and start the server."
        ;;
    *) say "The files of $PLASMA_ENVIRONMENT could not be copied: $1" ;;
    esac
}

# Whether this image's files have been copied: its id is one of the few lines of the marker.
is_copied() {
    [ -f "$marker" ] || return 1
    while IFS= read -r line; do
        [ "$line" = "$PLASMA_IMAGE_ID" ] && return 0
    done <"$marker"
    return 1
}

# Copy the image's files to the staging directory. What the image itself hides from the person is left out.
stage_files() {
    if ! [ -r "$source" ] || ! [ -x "$source" ]; then
        say "The files of $PLASMA_ENVIRONMENT cannot be read in its image: nothing is copied."
        return 0
    fi
    for entry in "$source"/* "$source"/.[!.]* "$source"/..?*; do
        [ -e "$entry" ] || [ -L "$entry" ] || continue
        case ${entry##*/} in
        .cache | .plasma) continue ;;
        esac
        errors=$(LC_ALL=C cp -RP -- "$entry" "$staging/" 2>&1) && continue
        unreadable=$(printf '%s\n' "$errors" | grep 'Permission denied$')
        others=$(printf '%s\n' "$errors" | grep -v 'Permission denied$')
        [ -z "$unreadable" ] || say "Not copied from the image: $unreadable"
        if [ -n "$others" ]; then
            complain "$others"
            return 1
        fi
    done
    # A directory that its owner may not write to could not be moved on from here.
    find "$staging" -type d ! -perm -700 -exec chmod u+rwx {} +
}

# Write a settings file of JupyterLab to the staging directory, unless the image brought its own.
stage_setting() { # stage_setting FILE TEXT
    file=$staging/.jupyter/lab/user-settings/$1
    [ -e "$file" ] || [ -L "$file" ] && return 0
    errors=$({ mkdir -p -- "${file%/*}" && printf '%s\n' "$2" >"$file"; } 2>&1) && return 0
    complain "$errors"
    return 1
}

stage_settings() {
    name=$(printf '%s' "$PLASMA_ENVIRONMENT" | tr -d '[:cntrl:]' | sed 's/[\\"]/\\&/g')
    stage_setting jupyterlab-topbar-text/plugin.jupyterlab-settings "{\"editable\": false, \"text\": \"$name\"}" &&
        stage_setting @jupyter-server/resource-usage/topbar-item.jupyterlab-settings '{"enable": true}'
}

# Move what is staged in $1 to $2. What is there already stays, and symbolic links are not followed.
merge() { # merge FROM TO
    for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$entry" ] || [ -L "$entry" ] || continue
        there=$2/${entry##*/}
        if [ -L "$there" ]; then
            continue
        elif ! [ -e "$there" ]; then
            # A rename: a file or a whole directory appears complete or not at all.
            mv -- "$entry" "$there" || return 1
        elif [ -d "$there" ] && [ -d "$entry" ] && ! [ -L "$entry" ]; then
            merge "$entry" "$there" || return 1
        fi
    done
}

# Copy the image's files, completely or, after an interruption, again from the start. One server at a time: two
# servers of one environment share the directory.
copy() {
    if command -v flock >/dev/null && ! flock -w 90 9; then
        say "Another server of $PLASMA_ENVIRONMENT is still copying its files: not waiting any longer."
        return 1
    fi
    is_copied && return 0
    rm -rf -- "$staging"
    errors=$(mkdir -- "$staging" 2>&1) || { complain "$errors" && return 1; }
    if stage_files && stage_settings; then
        if errors=$({ merge "$staging" "$target" && printf '%s\n' "$PLASMA_IMAGE_ID" >>"$marker"; } 2>&1); then
            rm -rf -- "$staging"
            return 0
        fi
        complain "$errors"
    fi
    # Give the space back.
    rm -rf -- "$staging"
    return 1
}

prepare() {
    if [ -z "$PLASMA_DIR" ] || [ -z "$PLASMA_IMAGE_ID" ]; then
        say "PLASMA_DIR and PLASMA_IMAGE_ID are not set: no files are copied."
        return 1
    fi
    if [ -L "$target" ]; then
        # The person put their directory elsewhere: use it, but write nothing through the link.
        is_copied || say "$target is a symbolic link: no files of $PLASMA_ENVIRONMENT are copied into it."
        return 0
    fi
    case $target/ in
    "$source"/*)
        say "The home is $source: no files are copied."
        mkdir -p -- "$target"
        return 0
        ;;
    esac
    errors=$(mkdir -p -- "$state" 2>&1) || { complain "$errors" && return 1; }
    copy 9>"$state/lock"
}

is_copied || prepare

usable=
if [ -d "$target" ] && cd -- "$target"; then
    usable=yes
else
    say "$target cannot be used: the server starts in $HOME."
    cd -- "$HOME" || cd /
fi
if [ -n "$PLASMA_SAFE_MODE" ]; then
    # Packages of `pip install --user`, which nearly every Python puts before its own, and settings and data of Jupyter.
    export PYTHONNOUSERSITE=1
    safe=$PLASMA_RUNTIME_DIR/safe
    export JUPYTER_CONFIG_DIR="$safe/config" JUPYTER_DATA_DIR="$safe/data"
    # Programs of the home that stand before the image's own.
    left=$image_path:
    image_path=
    while [ -n "$left" ]; do
        entry=${left%%:*}
        left=${left#*:}
        case $entry/ in
        "$HOME"/*) ;;
        *) image_path=$image_path${image_path:+:}$entry ;;
        esac
    done
elif [ -n "$usable" ]; then
    # Settings and extensions that the environment brings along.
    export JUPYTER_CONFIG_DIR="$target/.jupyter"
    export JUPYTER_PATH="$target/.local/share/jupyter${JUPYTER_PATH:+:$JUPYTER_PATH}"
fi
# Last: what the image and the person bring comes first. For the extension that shows notices of this server.
export JUPYTER_PATH="${JUPYTER_PATH:+$JUPYTER_PATH:}/opt/plasma/share/jupyter"
export JUPYTER_CONFIG_PATH="${JUPYTER_CONFIG_PATH:+$JUPYTER_CONFIG_PATH:}/opt/plasma/etc/jupyter"
if [ -d "$PLASMA_RUNTIME_DIR" ]; then
    # Keys and sockets of running kernels: nobody else's business, and needed when the disk is full too.
    export JUPYTER_RUNTIME_DIR="$PLASMA_RUNTIME_DIR/jupyter"
fi
# A name that the image has no file for would be read as UTC, without a word.
if [ -n "$PLASMA_TZ" ] && ! [ -e "/usr/share/zoneinfo/$TZ" ]; then
    export TZ="$PLASMA_TZ"
fi
if [ -z "$SHELL" ] && [ -x /bin/bash ]; then
    export SHELL=/bin/bash
fi

notebook=/srv/conda/envs/notebook/bin
case :$image_path: in
*:$notebook:*) ;;
*) [ -d $notebook ] && image_path=$notebook:$image_path ;;
esac
PATH=$image_path
export PATH
# Last: what is copied above is the person's alone.
umask "${PLASMA_UMASK:-022}"

# The repository's own "start" script, which repo2docker promises to run around the server.
if [ -n "$R2D_ENTRYPOINT" ] && [ -f "$R2D_ENTRYPOINT" ] && [ -x "$R2D_ENTRYPOINT" ]; then
    set -- "$R2D_ENTRYPOINT" "$@"
fi

# repo2docker's environments need their conda environment activated, which takes bash.
activate=/etc/profile.d/activate-conda.sh
if [ -r $activate ] && [ -x /bin/bash ]; then
    exec /bin/bash --noprofile --norc -c '. "$0"; exec "$@"' $activate "$@"
fi
exec "$@"
