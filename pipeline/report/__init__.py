"""What people look at: the result table of a task, its report, and the page that shows plots without a network."""

from pipeline.report.dvc_plots import plots_page as plots_page
from pipeline.report.table import result_table as result_table
