"""The result table of a task, its report, and the page that shows plots without a network."""
