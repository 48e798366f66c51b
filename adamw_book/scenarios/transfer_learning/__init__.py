"""Frontier · transfer learning (tag 3096511): digits of another collection and networks trained on them
(`sources`), the conditions of fine-tuning (`tasks`), its first steps and a start that is shrunk beforehand (`shock`),
and the chapter's protocol (`study`)."""
