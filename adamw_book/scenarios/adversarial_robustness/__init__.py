"""Robustness · adversarial robustness (tag 3096527): projected gradient descent and the radius that it leaves
(`attack`), the exact answers that it is checked against (`closed_form`), the networks that are attacked (`tasks`), a
boundary in the plane (`plane`), and the chapter's protocol (`study`)."""
