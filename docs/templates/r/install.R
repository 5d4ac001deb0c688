packages <- c("dplyr", "ggplot2", "readr")
install.packages(packages)

# A package that could not be installed is a warning for R, and ends the build here.
missing <- setdiff(packages, rownames(installed.packages()))
if (length(missing) > 0) {
  stop("not installed: ", paste(missing, collapse = ", "))
}
