answer <- function() 42L

shapes <- data.frame(name = c("round", "square"), corners = c(0, 4))
