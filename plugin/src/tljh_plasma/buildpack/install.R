# Read before a repository's install.R: what is there already is not fetched again, and what cannot be had is an error.
local({
  debian <- readLines("/usr/local/lib/plasma/r-packages")
  own <- "%s, which the distribution of this server has as %s: name that in apt.txt"
  other <- "%s %s, and the distribution of this server has %s of it: ask for no version, or for what there is"
  none <- paste(
    "%s, which neither the distribution of this server nor CRAN (%s) gives: look for a mistake in its name, leave it",
    "out, or choose an environment.yml, with which conda brings R"
  )

  # Whether a package is there in a version as remotes and pak write it: 1.2, >= 1.2, or none.
  there <- function(name, version, lib = NULL) {
    found <- suppressWarnings(packageDescription(name, c(lib, .libPaths()), "Version"))
    if (is.na(found) || is.na(version) || version %in% c("", "last", "current")) return(!is.na(found))
    parts <- regmatches(version, regexec("^([<>=!]*) *([0-9.-]+)$", version))[[1]]
    if (!length(parts)) return(FALSE)
    compare <- if (nzchar(parts[2])) match.fun(parts[2]) else `==`
    compare(package_version(found), package_version(parts[3]))
  }

  refuse <- function(name, version) {
    here <- intersect(paste0(c("r-cran-", "r-bioc-"), tolower(name)), debian)
    text <- if (there(name, NA)) sprintf(other, name, version, packageDescription(name, NULL, "Version"))
            else if (length(here)) sprintf(own, name, here[1])
            else sprintf(none, name, getOption("repos")[["CRAN"]])
    stop("install.R asks for ", text, call. = FALSE)
  }

  # A function that installs, without what is there. Names with a / are of GitHub, and files are not looked for.
  ours <- function(real) {
    known <- names(formals(real))
    function(...) {
      given <- list(...)
      named <- if (is.null(names(given))) rep("", length(given)) else names(given)
      first <- c(which(named == known[1]), which(named == ""))[1]
      if (is.na(first) || !is.character(given[[first]])) return(real(...))
      wanted <- given[[first]]
      name <- sub("@.*", "", sub("^[a-z]+::", "", wanted))
      version <- ifelse(grepl("@", wanted), sub(".*@", "", wanted), NA)
      second <- c(which(named == "version"), setdiff(which(named == ""), first))[1]
      if ("version" %in% known && !is.na(second) && is.character(given[[second]])) version <- given[[second]]
      plain <- grepl("^[A-Za-z][A-Za-z0-9.]+$", name) & !grepl("\\.(tar\\.[a-z0-9]+|tgz|zip)$", name)
      missing <- function() plain & !mapply(there, name, version, MoreArgs = list(lib = given$lib))
      left <- missing() | !plain
      if (!any(left)) return(invisible())
      given[[first]] <- wanted[left]
      problem <- tryCatch({ do.call(real, given); NULL }, error = identity)
      for (at in which(missing())) refuse(name[at], rep_len(version, length(name))[at])
      if (!is.null(problem)) stop(problem)
      invisible()
    }
  }

  replace <- function(package, names) {
    space <- asNamespace(package)
    for (name in intersect(names, ls(space))) {
      made <- ours(get(name, space))
      unlockBinding(name, space)
      assign(name, made, space)
      lockBinding(name, space)
    }
  }

  later <- list(remotes = c("install_cran", "install_version", "install_bioc"), BiocManager = "install",
                pak = c("pak", "pkg_install"))
  for (package in names(later)) local({
    package <- package
    setHook(packageEvent(package, "onLoad"), function(...) replace(package, later[[package]]))
  })
  replace("utils", "install.packages")
})
