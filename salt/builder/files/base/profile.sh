# Login shells forget the PATH of the image.
PATH="$HOME/.local/bin${REPO_DIR:+:$REPO_DIR/.local/bin}:$NB_PYTHON_PREFIX/bin:$PATH"
