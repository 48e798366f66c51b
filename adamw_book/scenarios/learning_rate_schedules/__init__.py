"""Frontier · learning-rate schedules (tag 3096515): what noise leaves of a weight while the rate changes (`floor`), the
settings in which a decay is tuned (`settings`), rules that carry a tuned decay from one to the others (`rules`), and
the chapter's protocol (`study`)."""
